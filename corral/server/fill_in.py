"""Prompts that ask for the text between a prefix and a suffix ("fill in the middle")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import NotSupported
from corral.server.schema import ExtraFile
from corral.server.state import LoadedModel
from corral.tokenizer.special_ids import SpecialIds

WINDOW = 2048
"""Tokens of prefix and suffix: llama-server takes its batch size, which is this by default."""
PROJECT, CURRENT_FILE, UNNAMED = "myproject\n", "filename\n", "tmp"
"""What llama-server calls what nobody has named: prompts of both are the same, token for token."""
SNIPPET = "\n\n--- snippet ---\n\n"
"""Before each further file, for a model without a token for that."""


@dataclass(frozen=True)
class Gap:
    """What is known about the text to be written."""

    prefix: str
    suffix: str
    extra: Sequence[ExtraFile] = ()
    """Other files of the same project."""
    begun: str = ""
    """How the text begins."""


def fill_in_prompt(
    model: LoadedModel, gap: Gap, n_ctx: int, max_tokens: int, *, suffix_first: bool = False
) -> list[int]:
    """Token ids of the prompt. Raises NotSupported for a model that was not trained for this.

    In the order of Qwen2.5-Coder (https://arxiv.org/abs/2409.12186): other files, prefix, suffix. Of a long
    prefix its end is taken, of a long suffix its beginning, of the other files what there is room for.
    `max_tokens` is the most that will be generated, -1 for no limit.
    """
    ids = fill_in_tokens(model)
    window = min(WINDOW, 3 * n_ctx // 4)
    begun = model.tokenizer.encode(gap.begun, add_special=False, parse_special=True)
    most = 3 * (window // 4)
    prefix = _encode(model, gap.prefix[-most * model.tokenizer.longest :])[-most:]
    most = max(0, window // 4 - 2 - len(begun))
    suffix = _encode(model, gap.suffix[: most * model.tokenizer.longest])[:most]
    before = [ids.prefix, *prefix, *begun]
    behind = [ids.suffix, *suffix]
    parts = [*behind, *before] if suffix_first else [*before, *behind]
    bos = [model.tokenizer.bos_id] if model.tokenizer.add_bos and model.tokenizer.bos_id is not None else []
    # llama-server would leave next to nothing for the text when its length is not limited
    room = max(0, n_ctx - window - 2 * (n_ctx // 8 if max_tokens < 0 else max_tokens))
    files = _files(model, gap.extra, room)
    return [*files[max(0, len(files) - room) :], *bos, *parts, ids.middle]


@dataclass(frozen=True)
class FillInTokens:
    prefix: int
    suffix: int
    middle: int


def fill_in_tokens(model: LoadedModel) -> FillInTokens:
    """The model's tokens for this. Raises NotSupported that names the missing ones."""
    special = model.tokenizer.special
    found = {"prefix": special.fim_pre, "suffix": special.fim_suf, "middle": special.fim_mid}
    missing = [name for name, id in found.items() if id is None]
    if missing:
        raise NotSupported(
            "Infill is not supported by this model: "
            + " ".join(f"{name} token is missing." for name in missing)
        )
    return FillInTokens(**{name: id for name, id in found.items() if id is not None})


def _files(model: LoadedModel, extra: Sequence[ExtraFile], room: int) -> list[int]:
    """The other files, and the name of the current one."""
    special: SpecialIds = model.tokenizer.special
    ids: list[int] = []
    if room == 0:
        return ids
    if special.fim_rep is not None:
        ids += [special.fim_rep, *_encode(model, PROJECT)]
    for file in extra:
        if special.fim_sep is not None:
            name = file.filename if file.filename is not None else UNNAMED
            ids += [special.fim_sep, *_encode(model, name[:4096] + "\n")]
        else:
            ids += _encode(model, SNIPPET)
        ids += _encode(model, file.text[-room * model.tokenizer.longest :])
    if special.fim_sep is not None:
        ids += [special.fim_sep, *_encode(model, CURRENT_FILE)]
    return ids


def _encode(model: LoadedModel, text: str) -> list[int]:
    return model.tokenizer.encode(text, add_special=False, parse_special=False)
