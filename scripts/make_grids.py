"""Write csrc/formats/grids.h: the codebooks of corral/gguf/grids.py for the kernels.

python scripts/make_grids.py
"""

from __future__ import annotations

from pathlib import Path

from corral.gguf.grids import GRIDS, words

TARGET = Path(__file__).resolve().parent.parent / "csrc" / "formats" / "grids.h"

HEAD = """\
// The codebooks of the IQ formats. Written by scripts/make_grids.py; not to be edited.
//
// An entry is the levels of 8 weights in 2 bits each, or of 4 in 3 bits each, the first weight lowest.
// clang-format off
#pragma once
#include <cstdint>

namespace corral {
"""


def header() -> str:
    parts = [HEAD]
    for type, grid in GRIDS.items():
        values = [f"{word:#x}" for word in words(grid).tolist()]
        lines = [", ".join(values[i : i + 16]) for i in range(0, len(values), 16)]
        name = "".join(part.capitalize() for part in type.name.split("_"))
        parts.append(
            f"constexpr uint16_t k{name}Grid[{len(values)}] = {{\n    " + ",\n    ".join(lines) + "};\n"
        )
    return "\n".join([*parts, "}  // namespace corral\n"])


if __name__ == "__main__":
    TARGET.write_text(header())
