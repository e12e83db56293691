"""Is corral as exact as llama.cpp in every weight format? quality.py, for a model re-quantized to each.

    python benchmarks/formats.py MODEL.gguf --peer-python OTHER_VENV/bin/python

The weights are dequantized and given to llama.cpp's quantizer; each file is then its own reference, computed
in float64 from what it holds. So the numbers are what each program adds to a file, not what the format costs.
A model that is too narrow for some formats is widened with zeros first, see widen.py; without that the
quantizer would take other types. `types` says what a file holds.
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
from widen import widen

from corral.gguf.reader import GGUFFile
from corral.tokenizer.tokenizer import load_tokenizer

FORMATS = (
    *("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
    *("TQ1_0", "TQ2_0", "MXFP4_MOE"),
)
"""Names of llama.cpp's file types."""
PURE = ("MXFP4_MOE",)
"""Types that the quantizer keeps for experts, unless it is told to use one for all."""
IMPORTANCE = ("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
"""What it only makes when told which weights matter: here it is told that all do."""

QUANTIZE = """
import ctypes, json, sys
import llama_cpp
job = json.load(sys.stdin)
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + job["name"])
params.nthread, params.pure = job["threads"], job["pure"]
columns = job["importance"]
ones = (ctypes.c_float * max([1, *columns.values()]))(*[1.0] * max([1, *columns.values()]))
rows = [llama_cpp.llama_model_imatrix_data(name.encode(), ones, size) for name, size in columns.items()]
rows.append(llama_cpp.llama_model_imatrix_data(None, None, 0))
if columns:
    params.imatrix = (llama_cpp.llama_model_imatrix_data * len(rows))(*rows)
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
sys.exit(llama_cpp.llama_model_quantize(job["source"].encode(), job["target"].encode(), params))
"""


def quantize(python: str, source: Path, target: Path, name: str, threads: int) -> None:
    """Have llama.cpp's quantizer write `target`, of the file type `name`. Raises SystemExit if it refuses."""
    importance = {}
    if name in IMPORTANCE:
        with GGUFFile.open(source) as file:
            importance = {n: tensor.shape[-1] for n, tensor in file.tensors.items() if len(tensor.shape) == 2}
    job = {
        "source": str(source),
        "target": str(target),
        "name": name,
        "threads": threads,
        "pure": name in PURE,
        "importance": importance,
    }
    if code := subprocess.run([python, "-c", QUANTIZE], input=json.dumps(job), text=True).returncode:
        raise SystemExit(f"--formats: llama.cpp's quantizer ended with code {code} for {name}")


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
    columns = ("corral", "llama.cpp", "corral minus llama.cpp (95 %)", "verdict", "perplexity")
    table = Table("format", "types", *columns)
    for name, each in found.items():
        results, difference = each["results"], each["kl_difference"]
        table.add_row(
            name,
            each["types"],
            f"{results[CORRAL]['kl_mean']:.3g}",
            f"{results[LLAMA_CPP]['kl_mean']:.3g}",
            f"{difference['mean']:+.1e} ({difference['low']:+.1e} to {difference['high']:+.1e})",
            difference["verdict"],
            f"{results['reference']['perplexity']:.1f}",
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
            write_float32(file, source, widen(file))
        for name in args.formats:
            path = Path(folder) / f"{name}.gguf"
            quantize(python, source, path, name, args.threads)
            found[name] = measure_format(path, args)
            print(name, json.dumps(found[name]), file=sys.stderr)
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
