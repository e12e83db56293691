"""What is in a GGUF file, and what it would need in memory."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from corral.config import EngineConfig
from corral.engine.load import plan_memory
from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType, ValueType, file_type_name
from corral.system.budget import MemoryPlan

SHOWN_ELEMENTS = 6
SHOWN_CHARACTERS = 100
TOKENS = "tokenizer.ggml.tokens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a GGUF file; of a split one, the first shard")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "-c", "--ctx-size", type=_at_least(0), default=0, metavar="N",
        help="tokens of context, of all requests together (default: 0, what the model was trained for)",
    )  # fmt: skip
    parser.add_argument(
        "-np", "--parallel", type=_at_least(1), default=1, metavar="N",
        help="requests that share the context (default: 1)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    with GGUFFile.open(args.file) as file:
        report = describe(file, args.ctx_size, args.parallel)
    if args.json:
        json.dump(report, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    else:
        _print(report, Console(highlight=False))
    return 0


def describe(file: GGUFFile, ctx_size: int = 0, parallel: int = 1) -> dict[str, Any]:
    """All that `info` prints, as JSON values; amounts in bytes. `ctx_size` 0 is the context of the model."""
    plan, refused = None, None
    try:
        plan = plan_memory(file, EngineConfig(ctx_size=ctx_size or None, parallel=parallel))
    except ModelFileError as error:
        refused = str(error)
    return {
        "files": [str(path) for path in file.paths],
        "file_bytes": sum(path.stat().st_size for path in file.paths),
        "version": file.version,
        "alignment": file.alignment,
        "metadata": {key: _value(file, key) for key in file.metadata},
        "model": _model(file),
        "refused": refused,
        "tensors": _tensors(file),
        "memory": _memory(plan, parallel),
    }


def _value(file: GGUFFile, key: str) -> Any:
    """A scalar as it is, an array as its type, length and beginning."""
    value = file.metadata[key]
    if file.metadata.value_type(key) is not ValueType.ARRAY:
        return _json_value(value)
    type, count = file.metadata.array_type(key)
    first = value[:SHOWN_ELEMENTS]
    elements = first.tolist() if isinstance(first, np.ndarray) else first
    return {"type": type.name, "count": count, "first": [_json_value(element) for element in elements]}


def _json_value(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _model(file: GGUFFile) -> dict[str, Any]:
    arch = file.architecture
    file_type = file.get("general.file_type", int, None)
    tokens = file.metadata.array_type(TOKENS)[1] if TOKENS in file.metadata else None
    return {
        "architecture": arch,
        "name": file.get("general.name", str, None),
        "file_type": None if file_type is None else file_type_name(file_type),
        "context_length": file.get(f"{arch}.context_length", int, None),
        "embedding_length": file.get(f"{arch}.embedding_length", int, None),
        "block_count": file.get(f"{arch}.block_count", int, None),
        "tokenizer": file.get("tokenizer.ggml.model", str, None),
        "pre_tokenizer": file.get("tokenizer.ggml.pre", str, None),
        "vocabulary": tokens,
        "chat_template": any(key.startswith("tokenizer.chat_template") for key in file.metadata),
    }


def _tensors(file: GGUFFile) -> dict[str, Any]:
    rows: dict[GGMLType, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in file.tensors.values():
        for index, amount in enumerate((1, tensor.n_elements, tensor.nbytes)):
            rows[tensor.type][index] += amount
    by_size = sorted(rows.items(), key=lambda row: -row[1][2])
    total = [sum(column) for column in zip(*rows.values(), strict=True)] or [0, 0, 0]
    return {"by_type": [_row(type.name, *row) for type, row in by_size], "total": _row("total", *total)}


def _row(name: str, count: int, parameters: int, size: int) -> dict[str, Any]:
    bits = round(8 * size / parameters, 3) if parameters else None
    return {"type": name, "count": count, "parameters": parameters, "bytes": size, "bits_per_weight": bits}


def _memory(plan: MemoryPlan | None, parallel: int) -> dict[str, Any]:
    """What `corral serve` would plan; KV cache in f16. All of it is None for a model that it refuses."""
    return {
        "ctx_size": plan and plan.ctx_size,
        "parallel": parallel,
        "ctx_size_per_request": plan and plan.ctx_size // parallel,
        "weights": plan and plan.weights,
        "kv_bytes_per_token": plan and plan.kv_cache // plan.pool,
        "kv_cache": plan and plan.kv_cache,
        "activations": plan and plan.activations,
        "processes": plan and plan.overhead,
        "total": plan and plan.total,
    }


def _print(report: dict[str, Any], console: Console) -> None:
    for path in report["files"]:
        console.print(Text(_printable(path, 1000)))
    console.print(
        f"GGUF version {report['version']}, {_size(report['file_bytes'])}, alignment {report['alignment']}\n"
    )
    console.print(_pairs("metadata", report["metadata"]))
    console.print(_pairs("model", report["model"]))
    numbers = (Column(name, justify="right") for name in ("tensors", "parameters", "size", "bits/weight"))
    tensors = Table("type", *numbers, title="tensors", title_justify="left")
    for row in (*report["tensors"]["by_type"], report["tensors"]["total"]):
        bits = "-" if row["bits_per_weight"] is None else f"{row['bits_per_weight']:.2f}"
        tensors.add_row(row["type"], str(row["count"]), f"{row['parameters']:,}", _size(row["bytes"]), bits)
    console.print(tensors)
    if report["refused"]:
        console.print(Text(f"\ncorral serve refuses it: {_printable(report['refused'], 1000)}"))
        return
    memory = report["memory"]
    sizes = {name: memory[name] for name in ("weights", "kv_cache", "activations", "processes", "total")}
    console.print(
        _pairs(
            "memory",
            {
                "context, tokens": memory["ctx_size"],
                f"each of {memory['parallel']} at once": memory["ctx_size_per_request"],
                "kv_cache, bytes a token (f16)": memory["kv_bytes_per_token"],
                **{name: _size(size) for name, size in sizes.items()},
            },
        )
    )


def _pairs(title: str, pairs: dict[str, Any]) -> Table:
    columns = (Column(no_wrap=True, overflow="fold"), Column(overflow="fold"))
    table = Table(*columns, title=title, title_justify="left", show_header=False)
    for key, value in pairs.items():
        table.add_row(Text(_printable(key, SHOWN_CHARACTERS)), Text(_shown(value)))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        more = ", ..." if value["count"] > len(value["first"]) else ""
        inside = ", ".join(_printable(str(element), 24) for element in value["first"])
        return f"[{inside}{more}]  {value['count']} {value['type']}"
    if isinstance(value, float):
        return f"{value:.7g}"  # as many digits as float32 has
    return _printable(str(value), SHOWN_CHARACTERS)


def _printable(text: str, most: int) -> str:
    """`text` on one line, not longer than `most`; what could steer the terminal is escaped."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _size(amount: int) -> str:
    return f"{amount / 2**30:.2f} GiB" if amount >= 2**30 else f"{amount / 2**20:.1f} MiB"


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number, at least {least}")
        return value

    return number
