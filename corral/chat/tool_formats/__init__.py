"""Call syntaxes, a file each. The first row that a template matches is its syntax."""

from __future__ import annotations

from collections.abc import Sequence

from corral.chat.tool_formats import (
    bare_json,
    command_r,
    deepseek,
    functionary,
    gemma,
    glm,
    harmony,
    kimi_k2,
    kimi_k3,
    minicpm,
    minimax_m3,
    mistral,
    muse,
    pythonic,
    solar,
    tagged_json,
    tagged_parameters,
)
from corral.chat.tool_formats.format import ToolFormat

FORMATS: Sequence[ToolFormat] = (
    minimax_m3.MINIMAX_M3,
    harmony.HARMONY,
    solar.SOLAR,
    muse.MUSE,
    functionary.V3_2,
    tagged_parameters.DEEPSEEK_V3_2,
    tagged_parameters.DEEPSEEK_V4,
    tagged_parameters.GIGACHAT_3_5,
    deepseek.V3,
    deepseek.V3_1,
    kimi_k2.KIMI_K2,
    kimi_k3.KIMI_K3,
    mistral.ARGS,
    mistral.ARRAY,
    tagged_json.COMMAND_R7B,
    command_r.COMMAND_R,
    glm.HY3,
    glm.GLM,
    tagged_parameters.SEED_OSS,
    tagged_parameters.MINIMAX_M2,
    tagged_parameters.QWEN3_CODER,
    minicpm.MINICPM_5,
    gemma.GEMMA_4,
    gemma.FUNCTION_GEMMA,
    pythonic.LFM2,
    pythonic.OLMO_3,
    pythonic.BARE,
    tagged_json.PHI_4_MINI,
    tagged_json.GRANITE,
    tagged_json.NEMOTRON_V2,
    tagged_json.APRIEL,
    tagged_json.MINIMAX_M1,
    tagged_json.APERTUS,
    tagged_json.FIREFUNCTION,
    tagged_json.GIGACHAT_3_1,
    tagged_json.GIGACHAT_3,
    tagged_json.NEMOTRON_MINI,
    tagged_json.HERMES,
    functionary.V3_1,
    bare_json.XLAM,
    bare_json.LLAMA_3,
    bare_json.LLAMA_4,
)

GENERIC = bare_json.GENERIC


def tool_format(template: str) -> ToolFormat:
    """The syntax of a chat template's tool calls."""
    return next((f for f in FORMATS if f.used_by(template)), GENERIC)
