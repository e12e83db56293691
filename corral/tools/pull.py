"""Fetch a model into the cache, or into a folder, and print its path. Without a terminal, as in an init
container, progress is a line every few seconds. What is here already is not fetched again."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from corral.command_line import download_places
from corral.config import DownloadConfig
from corral.download.fetch import fetch
from corral.download.progress import progress_on
from corral.errors import OptionError
from corral.flag import sha256_sum


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="USER/MODEL[:QUANT] of the Hugging Face hub, or an http or https address"
    )
    parser.add_argument("-hff", "--hf-file", metavar="FILE", help="this file of the repository")
    parser.add_argument("-hft", "--hf-token", metavar="TOKEN", help="for a gated model (default: HF_TOKEN)")
    parser.add_argument(
        "-o", "--output", metavar="PATH",
        help="a folder, or for an address a .gguf file (default: the cache, see LLAMA_CACHE)",
    )  # fmt: skip
    parser.add_argument("--sha256", metavar="HEX", help="what the file at the address must be")
    parser.add_argument("--offline", action="store_true", help="only look whether it is here already")


def run(args: argparse.Namespace) -> int:
    is_url = "://" in args.model
    if is_url and args.hf_file:
        raise OptionError("--hf-file names a file of a repository, and the model is an address")
    if not is_url and args.sha256:
        raise OptionError("--sha256 goes with an address: files of the hub are checked with its own sums")
    if not is_url and args.output and args.output.endswith(".gguf"):
        raise OptionError(f"--output {args.output}: expected a folder: the hub names the files")
    try:
        sha256 = sha256_sum(args.sha256) if args.sha256 else None
    except ValueError as error:
        raise OptionError(f"--sha256: {error}") from None
    places = download_places(os.environ)
    config = DownloadConfig(
        hf_repo=None if is_url else args.model,
        hf_file=args.hf_file,
        hf_token=args.hf_token or os.environ.get("HF_TOKEN") or None,
        model_url=args.model if is_url else None,
        sha256=sha256,
        offline=args.offline,
        output=args.output,
        **places,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # the next run goes on from here
    print(fetch(config, progress_on(sys.stderr)))
    return 0
