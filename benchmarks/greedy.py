"""Do corral and llama.cpp write the same? Greedy continuations of twenty prompts, and why some differ.

    python benchmarks/greedy.py MODEL.gguf --peer-python OTHER_VENV/bin/python

Both get the same token ids and keep a float16 KV cache. Where two continuations part, the float64 reference
is asked how far apart the two candidates really are. If that is less than a few times the error that the
implementations have in their logits at this place, it is a near-tie: rounding decided, not a mistake.

Two yardsticks: `--pair itself` is llama.cpp with and without flash attention; `--pair float32` is corral and
llama.cpp on the same weights dequantized, so that neither rounds activations to int8.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, installed or not

from divergence import logit_error
from runners import Corral, LlamaCpp, Runner, find_llama_cpp, machine, write_float32

from corral.chat.prompt import ChatPrompter
from corral.chat.template import choose_template
from corral.gguf.reader import GGUFFile
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

PROMPTS = Path(__file__).with_name("prompts.json")
CONTEXT = 512
NEAR = 4
"""A near-tie: a gap below this many times the error of the logits."""

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Where two continuations part. Each gap is logit(the first's token) - logit(the second's token)."""

    prompt: int
    position: int  # tokens that were equal
    tokens: tuple[str, str]
    gaps: tuple[float, float]  # in the logits of the first, of the second
    gap_reference: float
    error: float  # root mean square over both implementations and the vocabulary

    @property
    def near_tie(self) -> bool:
        return abs(self.gap_reference) < NEAR * self.error


def prompt_ids(tokenizer: Tokenizer, prompter: ChatPrompter, prompt: dict[str, Any]) -> list[int]:
    if "text" in prompt:
        return tokenizer.encode(prompt["text"], parse_special=False)
    return tokenizer.encode(prompter.prompt(prompt["chat"]))


def continuation(runner: Runner, prompt: list[int], eog: frozenset[int]) -> Iterator[tuple[int, Logits]]:
    """The most probable token, again and again, with the logits [V] it had; ends with an end token."""
    new, start = prompt, 0
    while True:
        logits = runner.logits(new, start)[0].copy()
        token = int(logits.argmax())
        yield token, logits
        if token in eog:
            return
        start += len(new)
        new = [token]


def compare(
    first: Runner, second: Runner, ids: list[int], eog: frozenset[int], count: int
) -> tuple[list[int], tuple[Logits, Logits] | None]:
    """The tokens both chose, at most `count`; and the logits of both where they part, if they do."""
    same: list[int] = []
    both = zip(continuation(first, ids, eog), continuation(second, ids, eog), range(count), strict=False)
    for (a, a_logits), (b, b_logits), _ in both:
        if a != b:
            return same, (a_logits, b_logits)
        same.append(a)
    return same, None


def explain(
    prompt: int, position: int, parted: tuple[Logits, Logits], truth: Logits, tokenizer: Tokenizer
) -> Split:
    a, b = (int(logits.argmax()) for logits in parted)
    gaps = [float(logits[a]) - float(logits[b]) for logits in (*parted, truth)]
    errors = [logit_error(logits, truth) for logits in parted]
    shown = [tokenizer.piece(token, special=True).decode("utf-8", "replace") for token in (a, b)]
    return Split(
        prompt=prompt,
        position=position,
        tokens=(shown[0], shown[1]),
        gaps=(gaps[0], gaps[1]),
        gap_reference=gaps[2],
        error=float(np.sqrt(np.mean(np.square(errors)))),
    )


@contextlib.contextmanager
def open_pair(
    file: GGUFFile, python: str, args: argparse.Namespace
) -> Iterator[dict[str, Corral | LlamaCpp]]:
    """Name -> the two that are compared."""
    with contextlib.ExitStack() as stack:
        path = file.path
        if args.pair == "float32":
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "f32.gguf"
            write_float32(file, path)
            file = stack.enter_context(GGUFFile.open(path))
        peer = stack.enter_context(LlamaCpp(python, path, CONTEXT, args.threads))
        if args.pair == "itself":
            plain = stack.enter_context(LlamaCpp(python, path, CONTEXT, args.threads, flash=False))
            yield {"without flash attention": plain, "llama.cpp": peer}
        else:
            yield {"corral": Corral.native(file, CONTEXT, args.threads, args.isa), "llama.cpp": peer}


def show(names: list[str], splits: list[Split], prompts: int, console: Console) -> None:
    console.print(f"{prompts - len(splits)} of {prompts} continuations are equal")
    gap_columns = [f"gap in {name}" for name in (*names, "reference")]
    table = Table("prompt", "after", *names, *gap_columns, "error", "near-tie")
    for s in splits:
        gaps = [f"{gap:+.3f}" for gap in (*s.gaps, s.gap_reference)]
        shown = [repr(token) for token in s.tokens]
        near = "yes" if s.near_tie else "NO"
        table.add_row(str(s.prompt), str(s.position), *shown, *gaps, f"{s.error:.3f}", near)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file")
    add("--prompts", type=Path, default=PROMPTS, help="default: prompts.json beside this script")
    add("--tokens", type=int, default=64, help="length of a continuation (default: 64)")
    add("--threads", type=int, default=2, help="of corral and of llama.cpp (default: 2)")
    add("--isa", default="auto", help="corral's instruction set (default: the best)")
    add("--chat-template", metavar="NAME", help="for a model that has none (default: chatml)")
    add("--peer-python", metavar="PATH", help="interpreter with llama_cpp (default: this one, if it has it)")
    add(
        "--pair", choices=["corral", "itself", "float32"], default="corral", help="what to compare; see above"
    )
    add("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    python = find_llama_cpp(args.peer_python)
    if python is None:
        raise SystemExit("no llama.cpp to compare with: name an interpreter that has it with --peer-python")
    prompts = json.loads(args.prompts.read_text())
    splits: list[Split] = []
    with GGUFFile.open(args.model) as file, open_pair(file, python, args) as pair:
        tokenizer = load_tokenizer(file)
        prompter = ChatPrompter.of(
            choose_template(file.metadata, args.chat_template), add_bos=tokenizer.add_bos
        )
        reference = Corral.reference(file, CONTEXT)
        first, second = pair.values()
        for number, prompt in enumerate(track(prompts, "prompts", console=Console(stderr=True)), 1):
            ids = prompt_ids(tokenizer, prompter, prompt)
            same, parted = compare(first, second, ids, tokenizer.eog_ids, args.tokens)
            if parted:
                truth = reference.logits(ids + same)[0]
                splits.append(explain(number, len(same), parted, truth, tokenizer))
        about = {"model": args.model.name, **machine(), **{name: one.about for name, one in pair.items()}}
    if args.json:
        rows = [{**asdict(split), "near_tie": split.near_tie} for split in splits]
        print(json.dumps({**about, "prompts": len(prompts), "splits": rows}, indent=2))
    else:
        show(list(pair), splits, len(prompts), Console())


if __name__ == "__main__":
    main()
