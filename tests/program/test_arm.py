"""The kernels of every ARM variant, cross-built and emulated, give the bits that this machine's kernels give.

Those are tested against numpy in the other files. `tests/native/kernel_dump.cpp` runs the kernels of both.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from ops import FLOATS, Array
from test_linear import SHAPES, inputs, raw_blocks

from corral.gguf.types import GGMLType
from corral.program.native import formats

pytestmark = [pytest.mark.native, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

CPUS = {
    "cortex-a72": ["neon", "scalar"],
    "neoverse-n1": ["neondot", "neon", "scalar"],
    "max": ["neoni8mm", "neondot", "neon", "scalar"],
}
"""What the emulator can be, and the variants that run on it, best first."""

TOKENS = (96 + 13, 10, 9, 8, 5, 3, 2, 1)
"""A block of 96 tokens and a rest; numbers that end in every kind of tile."""


@dataclass(frozen=True)
class Case:
    label: str
    op: str
    arrays: Sequence[Array]
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()

    def encoded(self) -> bytes:
        """As kernel_dump.cpp reads it."""
        counts = (len(self.op), len(self.ints), len(self.floats), len(self.arrays))
        header = struct.pack(
            f"<4i{counts[0]}s{counts[1]}i{counts[2]}f", *counts, self.op.encode(), *self.ints, *self.floats
        )
        return header + b"".join(struct.pack("<q", a.nbytes) + a.tobytes() for a in self.arrays)


def normal(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def strained(columns: int) -> Array:
    """Numbers of every size and both signs, halves that are rounded to even, zeros of both signs."""
    exponents = [-44, -38, -30, -8, -3, 0, 1, 2, 15, 38]
    x = np.clip(normal(10, columns) * 10.0 ** np.array(exponents)[:, None], -3e38, 3e38)
    k = np.arange(columns)
    halves = (k - columns // 2 + 0.5).clip(-126.5, 126.5)
    halves[::32] = 127  # the scale of 32 is 1
    zeros = np.where(k % 2, 0.0, -0.0)
    x = np.concatenate([x, [halves, zeros]]).astype(np.float32)
    return np.concatenate([x, np.resize(halfway(), (3, columns))])


def halfway() -> Array:
    """Where x / ln 2, with which e^x begins, is a tie between two integers once it is rounded to float32."""
    x = (np.arange(-120, 121)[:, None] + 0.5) * np.log(2) * (1 + 2.0**-24 * np.arange(-3, 4))
    x = np.unique(x.astype(np.float32))
    product = x * np.float32(np.log2(np.e))
    x = x[product - np.floor(product) == 0.5]
    assert len(x) > 200
    return x


def broken(columns: int) -> Array:
    """Rows that hold what no model should compute: NaN at every place of 32, infinities in both halves."""
    x = normal(33, columns)
    for row in range(32):
        x[row, row::32] = np.nan
    x[32, ::16] = np.inf
    return x


def linears() -> list[Case]:
    cases = []
    for kind, shapes in SHAPES.items():
        rows, columns = shapes[-1]
        if kind in FLOATS:
            w = normal(rows, columns)
            raw = {
                GGMLType.F32: w,
                GGMLType.F16: w.astype(np.float16),
                GGMLType.BF16: (w.view(np.uint32) >> 16).astype(np.uint16),
            }[kind]
        else:
            raw = np.frombuffer(raw_blocks(kind, rows, columns), np.uint8)
        x = inputs(columns)
        bias = np.linspace(-2, 3, rows, dtype=np.float32)
        cases.append(Case(f"dequantize-{kind.name}", "dequantize", [raw], (kind, columns)))
        for tokens in TOKENS:
            label = f"linear-{kind.name}-{tokens}"
            cases.append(
                Case(label, "linear", [raw, x[:tokens], bias][: 2 + tokens % 2], (kind, rows, columns))
            )
    return cases


def row_ops() -> list[Case]:
    x, weight = strained(83), normal(83)
    y = normal(*x.shape)
    y[:10] = x[9::-1]
    heads = normal(5, 3 * 40)
    cases = [
        Case("quantize", "quantize", [np.concatenate([inputs(800)[:12], strained(800)])], (800,)),
        Case("quantize-broken", "quantize", [broken(256)], (256,)),
        Case("rms_norm", "rms_norm", [x, weight], (83, 83), (1e-5,)),
        Case("rms_norm-heads", "rms_norm", [heads, normal(40)], (120, 40), (1e-6,)),
        Case("scale", "scale", [x], (83,), (25.298221,)),
        Case("softcap", "softcap", [x], (83,), (30.0,)),
    ]
    cases += [Case(op, op, [x, y], (83,)) for op in ("add", "silu_mul", "gelu_mul")]
    cases += [Case(op, op, [x], (83,)) for op in ("silu", "gelu")]
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite mean makes NaNs: their signs may differ
        summed = x[np.isfinite(x.sum(axis=1))]
    cases += [
        Case(f"layer_norm-{len(biases)}", "layer_norm", [summed, weight, *biases], (83,), (1e-12,))
        for biases in ([], [normal(83)])
    ]
    for rotated, interleaved in ((40, 0), (40, 1), (32, 0)):
        table = np.concatenate([f(np.linspace(0, 9, rotated // 2)) for f in (np.cos, np.sin)])
        arrays = [heads, table.astype(np.float32)]
        cases.append(Case(f"rope-{rotated}-{interleaved}", "rope", arrays, (120, 40, rotated, interleaved)))
    return cases


def attentions() -> list[Case]:
    cases = []
    for head_dim, heads, kv_heads, window, softcap, together, keys, values, both_ways in [
        (64, 9, 3, 0, 0.0, 7, 1, 1, 0),  # types of the cache: f32, f16, q8_0
        (80, 4, 4, 0, 0.0, 1, 1, 1, 0),
        (24, 3, 3, 7, 0.5, 13, 1, 1, 0),
        (128, 8, 2, 40, 50.0, 16, 1, 1, 0),
        (80, 4, 4, 0, 0.0, 1, 2, 2, 0),
        (80, 8, 2, 9, 0.0, 13, 2, 2, 0),
        (24, 3, 3, 0, 0.0, 7, 0, 2, 0),
        (64, 9, 3, 0, 0.0, 16, 2, 0, 0),
        (32, 6, 6, 0, 0.0, 16, 1, 1, 1),
    ]:
        q, k, v = (normal(101, count * head_dim) for count in (heads, kv_heads, kv_heads))
        k[50] *= 1e6  # beyond float16
        v[60] *= 1e-7  # subnormal in float16
        k[70, 3] = v[80, 3] = np.nan
        cases.append(
            Case(
                f"attend-{head_dim}-{heads}-{kv_heads}-{window}-{keys}-{values}",
                "attend",
                [q, k, v, *([np.linspace(0, 1, heads, dtype=np.float32)] * both_ways)],
                (heads, kv_heads, head_dim, window, together, keys, values, both_ways),
                (head_dim**-0.5, softcap),
            )
        )
    return cases


CASES = [*linears(), *row_ops(), *attentions()]


def run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def tool(*names: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    pytest.skip(f"no {' or '.join(names)}")


@pytest.fixture(scope="module")
def here() -> Path:
    """The program for this machine, built together with the extension."""
    program = ROOT / os.environ.get("CORRAL_BUILD", "build/dev") / "kernel_dump"
    if not program.exists():
        pytest.skip(f"no {program}: ./dev build makes it")
    return program


@pytest.fixture(scope="module")
def emulator() -> str:
    return tool("qemu-aarch64-static", "qemu-aarch64")


@pytest.fixture(scope="module")
def there(emulator: str) -> Path:
    """The program for ARM; linked statically, as the emulator has no libraries to load."""
    compiler, cmake, ninja = tool("aarch64-linux-gnu-g++"), tool("cmake"), tool("ninja")
    folder = ROOT / "build/aarch64"
    if not (folder / "build.ninja").exists():
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_SYSTEM_NAME": "Linux",
            "CMAKE_SYSTEM_PROCESSOR": "aarch64",
            "CMAKE_CXX_COMPILER": compiler,
            "CMAKE_EXE_LINKER_FLAGS": "-static",
            "CMAKE_MAKE_PROGRAM": ninja,
            "CORRAL_EXTENSION": "OFF",
        }
        run([cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{k}={v}" for k, v in options.items())])
    run([ninja, "-C", folder])
    return folder / "kernel_dump"


@pytest.fixture(scope="module")
def cases_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "cases"
    path.write_bytes(b"".join(case.encoded() for case in CASES))
    return path


Results = dict[str, dict[str, bytes]]
"""By variant and label."""


def results(program: Sequence[str | Path], cases_file: Path) -> Results:
    path = cases_file.with_name("results")
    names = run([*program, cases_file, path]).split()
    data, at, found = path.read_bytes(), 0, {}
    for name in names:
        found[name] = {}
        for case in CASES:
            (size,) = struct.unpack_from("<q", data, at)
            found[name][case.label] = data[at + 8 : at + 8 + size]
            at += 8 + size
    assert at == len(data)
    return found


@pytest.fixture(scope="module")
def expected(here: Path, cases_file: Path) -> Results:
    return results([here], cases_file)


@pytest.fixture(scope="module")
def emulated(emulator: str, there: Path, cases_file: Path) -> dict[str, Results]:
    return {cpu: results([emulator, "-cpu", cpu, there], cases_file) for cpu in CPUS}


@pytest.mark.parametrize("label", [case.label for case in CASES])
def test_same_bits_here(expected: Results, label: str) -> None:
    """The variants of this machine, called directly: with the sanitizers, each array ends where it should."""
    for name in expected:
        assert len({found[label] for found in alike(expected, label, name).values()}) == 1, name


def alike(found: Results, label: str, isa: str = "scalar") -> Results:
    """The variants of this machine that round activations for this as `isa` does."""

    def rounding(name: str) -> list[int]:
        return [group for kind, group in formats(name).items() if label.startswith(f"linear-{kind.name}-")]

    return {name: results for name, results in found.items() if rounding(name) == rounding(isa)}


def test_a_cpu_gets_the_variants_it_can_run(emulated: dict[str, Results]) -> None:
    assert {cpu: list(found) for cpu, found in emulated.items()} == CPUS


@pytest.mark.parametrize("label", [case.label for case in CASES])
def test_same_bits(expected: Results, emulated: dict[str, Results], label: str) -> None:
    wanted = np.frombuffer(expected["scalar"][label], np.uint32)
    assert wanted.any()
    variants = alike(expected, label) | {
        f"{name} on {cpu}": found for cpu, each in emulated.items() for name, found in each.items()
    }
    for name, found in variants.items():
        differs = np.frombuffer(found[label], np.uint32) != wanted
        assert not differs.any(), f"{name}: {differs.sum()} of {differs.size} words, from {differs.argmax()}"
