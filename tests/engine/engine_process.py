"""The engine process with a fake executor. The model's path says what happens while loading."""

from __future__ import annotations

import os
import signal
import sys
import time

import msgspec
from fake_executor import READY, TABLES, FakeExecutor

from corral.config import EngineConfig, ModelConfig
from corral.engine import process
from corral.engine.engine import Engine
from corral.engine.loop import LoadedModel, Progress
from corral.engine.scheduler import Limits
from corral.errors import OptionError, Unavailable


class SlowExecutor(FakeExecutor):
    def step(self, batch):  # type: ignore[no-untyped-def]
        time.sleep(0.01)
        return super().step(batch)


def load(model: ModelConfig, config: EngineConfig, progress: Progress) -> LoadedModel:
    progress(0.5, "half")
    match model.path:
        case "too big":
            raise OptionError("error: the model does not fit")
        case "bug":
            raise ZeroDivisionError("oops")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "never":
            time.sleep(60)
    executor = SlowExecutor() if model.path == "slow" else FakeExecutor()
    limits = Limits(n_ctx=1024, num_blocks=64, parallel=config.parallel)
    # the process id, for the test
    ready = msgspec.structs.replace(READY, parallel=config.parallel, load_ms=os.getpid())
    return LoadedModel(Engine(executor, TABLES, limits), ready, damaged if model.path == "damaged" else None)


def damaged() -> None:
    raise Unavailable("the weights are damaged")


if __name__ == "__main__":
    sys.exit(process.main(int(sys.argv[1]), load))
