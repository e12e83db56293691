"""Which kernels a build has, by the switches it is given. Nothing is compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ("-DLLAMA_NATIVE=OFF", "-DLLAMA_AVX2=ON", "-DLLAMA_FMA=ON")
ARM = {"neon", "neondot", "neoni8mm", "scalar"}


def configure(folder: Path, processor: str, *switches: str) -> subprocess.CompletedProcess[str]:
    tools = [shutil.which(name, path=str(Path(sys.executable).parent)) for name in ("cmake", "ninja")]
    if None in tools or shutil.which("c++") is None:
        pytest.skip("no cmake, ninja or c++ here")
    words = [
        str(tools[0]), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools[1]}",
        "-DCORRAL_EXTENSION=OFF", "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={processor}",
        *switches,
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("processor", "switches", "variants"),
    [
        ("x86_64", GUIDE, {"avx2", "scalar"}),
        ("x86_64", ("-DGGML_AVX512=ON",), {"avx512", "scalar"}),
        (
            "x86_64",
            ("-DCORRAL_VARIANTS=avx2;avx512vnni", "-DGGML_AVX512=ON"),
            {"avx2", "avx512vnni", "scalar"},
        ),
        ("aarch64", (), ARM),
        ("aarch64", GUIDE, ARM),
        ("aarch64", ("-DCORRAL_VARIANTS=neon",), {"neon", "scalar"}),
    ],
)
def test_variants(processor: str, switches: tuple[str, ...], variants: set[str], tmp_path: Path) -> None:
    done = configure(tmp_path, processor, *switches)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"kernels_(\w+)\.dir", (tmp_path / "build.ninja").read_text())) == variants


def test_a_variant_of_another_processor_is_refused(tmp_path: Path) -> None:
    done = configure(tmp_path, "aarch64", "-DCORRAL_VARIANTS=avx2")
    assert done.returncode != 0
    assert "there is no variant avx2 for aarch64" in done.stderr
