"""From the fields of a request to the parameters of the sampler."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fake_engine import FakeTokenizer

from corral.sampling.check import check_params
from corral.sampling.params import SamplingParams
from corral.server.generate import sampling_params
from corral.server.schema import GenerateRequest

DEFAULTS = SamplingParams(dry_base=3.0, top_k=7)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(
            ({name: value}, {name: value})
            for name, value in {
                "temperature": -1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 2.0, "top_k": 3,
                "top_p": 0.4, "min_p": 0.2, "typical_p": 0.9, "top_n_sigma": 1.5, "xtc_probability": 0.5,
                "xtc_threshold": 0.2, "min_keep": 2, "repeat_penalty": 1.1, "repeat_last_n": -1,
                "presence_penalty": 0.1, "frequency_penalty": 0.2, "dry_multiplier": 0.8, "dry_base": 2.0,
                "dry_allowed_length": 4, "dry_penalty_last_n": -1, "mirostat": 2, "mirostat_tau": 4.0,
                "mirostat_eta": 0.2, "adaptive_target": 0.4, "adaptive_decay": 0.5, "ignore_eos": True,
                "n_probs": 3, "post_sampling_probs": True, "seed": 5,
            }.items()
        ),
        ({}, {}),
        ({"top_k": None}, {}),
        ({"seed": -1}, {"seed": None}),
        ({"dry_base": 0.9}, {}),
        ({"dry_sequence_breakers": ["a", "b"]}, {"dry_sequence_breakers": ("a", "b")}),
        ({"samplers": ["top-k", "TEMP", "tfs_z"]}, {"samplers": ("top_k", "temperature")}),
        ({"samplers": "tk?"}, {"samplers": ("temperature", "top_k")}),
        ({"samplers": []}, {"samplers": ()}),
    ],
)  # fmt: skip
def test_a_field_reaches_the_sampler(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    request = msgspec.convert(fields, GenerateRequest)
    params = sampling_params(request, DEFAULTS, FakeTokenizer(), 1000)
    assert params == msgspec.structs.replace(DEFAULTS, **expected)
    check_params(params, 1000)
