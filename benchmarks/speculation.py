"""What guessing tokens brings where a text repeats its prompt: a request to edit a file of code.

    python benchmarks/speculation.py MODEL.gguf

The answer is written here, and the sampler is made to choose it, so that every model, of random weights too,
is measured on the same text: the code of the prompt with four edits. Each round has the answer once without
guesses and once with `--spec-type ngram-simple`; what is shown is the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, installed or not

from runners import machine

from corral.config import EngineConfig, ModelConfig
from corral.engine.engine import Engine
from corral.engine.load import load
from corral.engine.messages import Submit
from corral.gguf.reader import GGUFFile
from corral.sampling.chain import Chain
from corral.sampling.kernels import Float32
from corral.sampling.params import SamplingParams
from corral.tokenizer.tokenizer import load_tokenizer

CODE = '''\
"""Parcels on their way, and what is known of them."""

import json
from dataclasses import dataclass
from pathlib import Path

LIMIT = 30


@dataclass
class Parcel:
    number: str
    weight: float
    town: str
    delivered: bool = False


class Depot:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.parcels = {}

    def read(self):
        """Read every parcel that was saved."""
        for path in sorted(self.folder.glob("*.json")):
            fields = json.loads(path.read_text())
            self.parcels[fields["number"]] = Parcel(**fields)

    def save(self, parcel):
        """Write one parcel, and remember it."""
        path = self.folder / f"{parcel.number}.json"
        path.write_text(json.dumps(vars(parcel)))
        self.parcels[parcel.number] = parcel

    def deliver(self, number):
        parcel = self.parcels[number]
        parcel.delivered = True
        self.save(parcel)

    def open_parcels(self):
        return [parcel for parcel in self.parcels.values() if not parcel.delivered]

    def heavy_parcels(self):
        return [parcel for parcel in self.open_parcels() if parcel.weight > LIMIT]

    def towns(self):
        counts = {}
        for parcel in self.open_parcels():
            counts[parcel.town] = counts.get(parcel.town, 0) + 1
        return counts


def report(depot):
    for town, count in sorted(depot.towns().items()):
        print(f"{town:20}{count:5}")
    print(f"{len(depot.heavy_parcels())} of them need two people")
'''
EDITS = (
    ("LIMIT = 30", "LIMIT = 25.0"),
    ("    parcel = self.parcels[number]",
     "    if number not in self.parcels:\n            return\n        parcel = self.parcels[number]"),
    ("def towns(self):", 'def towns(self):\n        """How many parcels each town waits for."""'),
    ("{town:20}{count:5}", "{town:<30}{count:>8}"),
)  # fmt: skip
TASK = "Make the limit 25.0, deliver nothing that is not known, describe towns, and widen the report:\n\n"


class Forced(Chain):
    """Does the work of a chain and then chooses what is written."""

    def __init__(self, answer: Sequence[int], prompt_length: int) -> None:
        super().__init__(SamplingParams(), seed=0)
        self._answer, self._prompt_length = answer, prompt_length

    def sample(self, row: Float32, tokens: Sequence[int]) -> int:
        super().sample(row, tokens)
        return self._answer[len(tokens) - self._prompt_length]


class Run(NamedTuple):
    tokens: int
    steps: int
    seconds: float
    """From the first token to the last."""


def run(engine: Engine, prompt: list[int], answer: list[int], *, guess: bool) -> Run:
    submit = Submit(id="x", prompt=prompt, max_tokens=len(answer))
    assert not engine.submit(submit)
    request = engine._requests[submit.id]
    request.chain = Forced(answer, len(prompt))
    if not guess:
        request.draft = None
    found: list[int] = []
    steps = 0
    while True:
        for output in engine.step():
            assert output.error is None, output.error
            found += output.tokens
            steps += bool(output.tokens)
            if output.finish_reason and output.timings:
                assert found == answer, "the text is not the one that was to be written"
                return Run(len(found), steps, output.timings.predicted_ms / 1e3)


def measure(
    model: str, rounds: int, size: int, most: int, threads: int | None
) -> tuple[list[Run], list[Run]]:
    """Without guesses, and with."""
    file = GGUFFile.open(model)
    tokenizer = load_tokenizer(file)
    edited = CODE
    for old, new in EDITS:
        assert edited.count(old) == 1, old
        edited = edited.replace(old, new)
    prompt, answer = tokenizer.encode(TASK + CODE + "\n", add_special=True), tokenizer.encode(edited)
    config = EngineConfig(
        ctx_size=len(prompt) + len(answer) + 64,
        parallel=1,
        threads=threads,
        speculation=("ngram-simple",),
        ngram_size=size,
        ngram_draft=most,
    )
    engine = load(ModelConfig(path=model), config, lambda _share, _message: None).engine
    assert isinstance(engine, Engine)
    pairs = [
        (run(engine, prompt, answer, guess=False), run(engine, prompt, answer, guess=True))
        for _ in range(rounds)
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size-n", type=int, default=EngineConfig().ngram_size, help="[%(default)s]")
    parser.add_argument("--size-m", type=int, default=EngineConfig().ngram_draft, help="[%(default)s]")
    args = parser.parse_args(argv)
    sides = measure(args.model, args.rounds, args.size_n, args.size_m, args.threads)
    print(f"{Path(args.model).name}, {machine()['cpu']}")
    for name, runs in zip(("without", "with guesses"), sides, strict=True):
        speed = statistics.median(one.tokens / one.seconds for one in runs)
        print(f"{name:14}{runs[0].tokens:5} tokens in {runs[0].steps:4} steps, {speed:7.1f} tokens/s")
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(*sides, strict=True))
    print(f"{ratio:.2f}x as fast")


if __name__ == "__main__":
    main()
