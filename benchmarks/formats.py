"""Is corral as exact as llama.cpp in every weight format? quality.py, for a model re-quantized to each.

    python benchmarks/formats.py MODEL.gguf --peer-python OTHER_VENV/bin/python

The weights are dequantized and given to llama.cpp's quantizer; each file is then its own reference, computed
in float64 from what it holds. So the numbers are what each program adds to a file, not what the format costs.
Where a matrix is not as wide as a format needs, the quantizer takes another: `types` says what a file holds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, installed or not

from quality import CORRAL, LLAMA_CPP, TEXT, measure, open_runners, report, windows
from runners import find_llama_cpp, machine, write_float32

from corral.gguf.reader import GGUFFile
from corral.tokenizer.tokenizer import load_tokenizer

FORMATS = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ2_0")
"""Names of llama.cpp's file types that need no importance matrix."""

QUANTIZE = """
import ctypes, sys
import llama_cpp
source, target, name = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + name)
params.nthread = 1
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))
"""


def types_of(file: GGUFFile) -> str:
    """`Q4_K 40 %, Q6_K 60 %`: the types of the matrices, by their share of the weights."""
    weights: Counter[str] = Counter()
    for tensor in file.tensors.values():
        if len(tensor.shape) == 2:
            weights[tensor.type.name] += tensor.n_elements
    return ", ".join(f"{name} {count / weights.total():.0%}" for name, count in weights.most_common())


def measure_format(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        parts = windows(load_tokenizer(file), TEXT.read_text(), args.window, args.tokens)
        about: dict[str, Any] = {"types": types_of(file)}
        with open_runners(file, args, about) as runners:
            return about | report(measure(file, parts, runners))


def show(found: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table("format", "types", "corral", "llama.cpp", "corral minus llama.cpp (95 %)", "verdict")
    for name, each in found.items():
        results, difference = each["results"], each["kl_difference"]
        table.add_row(
            name,
            each["types"],
            f"{results[CORRAL]['kl_mean']:.3g}",
            f"{results[LLAMA_CPP]['kl_mean']:.3g}",
            f"{difference['mean']:+.1e} ({difference['low']:+.1e} to {difference['high']:+.1e})",
            difference["verdict"],
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="The exactness of corral's logits by weight format.")
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file")
    add("--formats", nargs="+", default=FORMATS, metavar="NAME", help=f"default: {' '.join(FORMATS)}")
    add("--tokens", type=int, default=1024, help="how many of text.txt (default: 1024)")
    add("--window", type=int, default=512, help="tokens of context, each window anew (default: 512)")
    add("--threads", type=int, default=2, help="of corral and of llama.cpp (default: 2)")
    add("--isa", default="auto", help="corral's instruction set (default: the best)")
    add("--peer-python", metavar="PATH", help="interpreter with llama_cpp (default: this one)")
    add("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    args.check_reference = False
    python = find_llama_cpp(args.peer_python)
    if python is None:
        raise SystemExit("--peer-python is not given, expected an interpreter with llama-cpp-python")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "f32.gguf"
        with GGUFFile.open(args.model) as file:
            write_float32(file, source)
        for name in args.formats:
            path = Path(folder) / f"{name}.gguf"
            subprocess.run([python, "-c", QUANTIZE, str(source), str(path), name], check=True)
            found[name] = measure_format(path, args)
            print(name, json.dumps(found[name]["results"]), file=sys.stderr)
            path.unlink()
    if args.json:
        about = {
            "model": args.model.name,
            "tokens": args.tokens,
            "window": args.window,
            "date": datetime.date.today().isoformat(),
            "numpy": np.__version__,
            **machine(),
        }
        print(json.dumps(about | {"formats": found}, indent=2))
    else:
        show(found, Console())


if __name__ == "__main__":
    main()
