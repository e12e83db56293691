"""How exact are corral's logits? Against the model in float64, beside llama.cpp on the same file and text.

    python benchmarks/quality.py MODEL.gguf --peer-python OTHER_VENV/bin/python

The reference is computed from the dequantized weights, in float64, with nothing rounded on the way;
`--check-reference` has llama.cpp confirm it, in float32 from a file with the same weights dequantized.
docs/quality.md has results and what they mean.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, installed or not

from divergence import Scores, paired_bootstrap, score_window
from runners import Corral, LlamaCpp, Runner, find_llama_cpp, machine, write_float32

from corral.gguf.reader import GGUFFile
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

TEXT = Path(__file__).with_name("text.txt")
CORRAL, LLAMA_CPP = "corral", "llama.cpp"


def windows(tokenizer: Tokenizer, text: str, size: int, tokens: int) -> list[NDArray[np.int32]]:
    """`tokens` tokens from the beginning of `text`, in windows of `size`; BOS first if the model wants it."""
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    head = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    step = size - len(head)
    count = tokens // size if tokens else len(ids) // step
    if count < 1 or count * step > len(ids):
        raise SystemExit(
            f"--tokens is {tokens}, expected {size} to {len(ids) // step * size}, what the text has"
        )
    return [np.array(head + ids[i * step : (i + 1) * step], np.int32) for i in range(count)]


@contextlib.contextmanager
def open_runners(
    file: GGUFFile, args: argparse.Namespace, about: dict[str, Any]
) -> Iterator[dict[str, Runner]]:
    """Name -> what is compared with the reference."""
    with contextlib.ExitStack() as stack:
        native = Corral.native(file, args.window, args.threads, args.isa)
        found: dict[str, Runner] = {CORRAL: native}
        about[CORRAL] = native.about
        python = find_llama_cpp(args.peer_python)
        if python:
            peer = stack.enter_context(LlamaCpp(python, file.path, args.window, args.threads))
            found[LLAMA_CPP] = peer
            about[LLAMA_CPP] = peer.about
        if args.check_reference:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_float32(file, folder / "f32.gguf")
            floats = stack.enter_context(GGUFFile.open(folder / "f32.gguf"))
            found["corral, float32 weights"] = Corral.native(floats, args.window, args.threads, args.isa)
            if python:
                exact = LlamaCpp(
                    python, folder / "f32.gguf", args.window, args.threads, flash=False, kv32=True
                )
                found["llama.cpp, all float32"] = stack.enter_context(exact)
        yield found


def measure(file: GGUFFile, parts: list[NDArray[np.int32]], runners: dict[str, Runner]) -> dict[str, Scores]:
    """Name -> scores over all windows; "reference" is first."""
    reference = Corral.reference(file, len(parts[0]))
    scores: dict[str, list[Scores]] = {"reference": [], **{name: [] for name in runners}}
    for tokens in track(parts, "windows", console=Console(stderr=True)):
        ids = tokens.tolist()
        truth = reference.logits(ids, every=True)
        others = [runner.logits(ids, every=True) for runner in runners.values()]
        for into, window in zip(scores.values(), score_window(truth, others, tokens), strict=True):
            into.append(window)
    return {name: Scores.join(windows) for name, windows in scores.items()}


def report(scores: dict[str, Scores]) -> dict[str, Any]:
    """What is printed: a summary of each, and corral's difference from llama.cpp."""
    found: dict[str, Any] = {"results": {name: score.summary().as_dict() for name, score in scores.items()}}
    if LLAMA_CPP in scores:
        difference = paired_bootstrap(scores[CORRAL].kl, scores[LLAMA_CPP].kl)
        found["kl_difference"] = {
            "mean": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "verdict": difference.verdict,
        }
    return found


def show(found: dict[str, Any], console: Console) -> None:
    table = Table("logits of", "mean KL", "median", "99th pct", "max", "same top token", "perplexity")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, r in found["results"].items():
        own = name == "reference"
        numbers = [r["kl_mean"], r["kl_median"], r["kl_p99"], r["kl_max"]]
        cells = [f"{n:.3g}" for n in numbers] + [f"{r['same_top']:.2%}"]
        table.add_row(name, *(["" for _ in cells] if own else cells), f"{r['perplexity']:.4f}")
    console.print(table)
    if difference := found.get("kl_difference"):
        line = "mean KL, corral minus llama.cpp: {mean:+.2e} (95 %: {low:+.2e} to {high:+.2e}), {verdict}"
        console.print(line.format(**difference), soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The exactness of corral's logits, beside llama.cpp's.")
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file")
    add("--text", type=Path, default=TEXT, help="what to read (default: text.txt beside this script)")
    add("--tokens", type=int, default=2560, help="how many, 0 for all of the text (default: 2560)")
    add("--window", type=int, default=512, help="tokens of context, each window anew (default: 512)")
    add("--threads", type=int, default=2, help="of corral and of llama.cpp (default: 2)")
    add("--isa", default="auto", help="corral's instruction set (default: the best)")
    add("--peer-python", metavar="PATH", help="interpreter with llama_cpp (default: this one, if it has it)")
    add("--check-reference", action="store_true", help="also compute the model from float32 weights")
    add("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    text = args.text.read_text()
    with GGUFFile.open(args.model) as file:
        parts = windows(load_tokenizer(file), text, args.window, args.tokens)
        about = {
            "model": args.model.name,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "window": args.window,
            "date": datetime.date.today().isoformat(),
            "threads": args.threads,
            "numpy": np.__version__,
            **machine(),
        }
        with open_runners(file, args, about) as runners:
            scores = measure(file, parts, runners)
    found = {**about, **report(scores)}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console())


if __name__ == "__main__":
    main()
