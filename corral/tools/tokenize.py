"""Text to token ids, as llama-tokenize prints them. Works on vocabulary-only files too."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys

from corral.errors import OptionError
from corral.gguf.reader import GGUFFile
from corral.tokenizer.tokenizer import load_tokenizer

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([nrt'\"\\]))")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"'": b"'", b'"': b'"', b"\\": b"\\"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags, which are llama-tokenize's."""
    add, on_off = parser.add_argument, argparse.BooleanOptionalAction
    add("-m", "--model", required=True, metavar="FILE", help="GGUF file of a model or of a vocabulary alone")
    add("-p", "--prompt", metavar="TEXT", help="text to tokenize (default: standard input)")
    add("-f", "--file", metavar="FILE", help="file to tokenize, byte for byte; before --prompt")
    add("--stdin", action="store_true", help="tokenize standard input; before --file and --prompt")
    add("--ids", action="store_true", help="print only the ids, as [1, 2, 3]")
    add("--no-bos", action="store_true", help="add no BOS token, even if the model wants one")
    add("--parse-special", action=on_off, default=True, help="recognise control tokens in the text")
    add(
        "-e",
        "--escape",
        action=on_off,
        default=True,
        help=r"turn \n, \r, \t, \', \", \\, \xHH into characters",
    )
    add("--show-count", action="store_true", help="print the number of tokens at the end")
    add("--log-disable", action="store_true", help="no warnings about the vocabulary")


def run(args: argparse.Namespace) -> int:
    """Print the tokens of a text on standard output. Returns the exit code."""
    if args.log_disable:
        logging.getLogger("corral").setLevel(logging.CRITICAL)
    with GGUFFile.open(args.model) as gguf:
        tokenizer = load_tokenizer(gguf)
    data = _input(args)
    if args.escape:
        data = _ESCAPE.sub(_unescaped, data)
    ids = tokenizer.encode(
        data.decode("utf-8", "replace"),
        add_special=tokenizer.add_bos and not args.no_bos,
        parse_special=args.parse_special,
    )
    if args.ids:
        lines = [str(ids).encode()]
    else:
        lines = [b"%6d -> '%s'" % (id, tokenizer.piece(id, special=True)) for id in ids]
    if args.show_count:
        lines.append(b"Total number of tokens: %d" % len(ids))
    # bytes, because a piece need not be whole characters
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(line + b"\n" for line in lines))
    sys.stdout.buffer.flush()
    return 0


def _input(args: argparse.Namespace) -> bytes:
    if args.file is not None and not args.stdin:
        try:
            with open(args.file, "rb") as file:
                return file.read()
        except OSError as error:
            raise OptionError(f"--file is {args.file}, expected a readable file ({error.strerror})") from None
    if args.prompt is not None and not args.stdin:
        return os.fsencode(args.prompt)
    return sys.stdin.buffer.read()


def _unescaped(match: re.Match[bytes]) -> bytes:
    hexadecimal, char = match.groups()
    return bytes.fromhex(hexadecimal.decode()) if hexadecimal else _ESCAPED[char]
