"""When the server hears how the engine is."""

from __future__ import annotations

from fake_executor import READY, build_engine

from corral.engine.loop import LoadedModel, Reports
from corral.engine.messages import Submit
from corral.sampling.params import SamplingParams

LONG = SamplingParams(seed=1, ignore_eos=True)


def test_reports_at_once_when_idle_soon_after_a_change_and_now_and_then() -> None:
    engine = build_engine()
    reports = Reports(LoadedModel(engine, READY))
    (first,) = reports.due(0.0)
    assert (first.state, first.ready, first.stats.blocks_total) == ("ready", READY, 64)
    assert reports.due(100.0) == []  # idle, and nothing new

    engine.submit(Submit(id="a", prompt=[1], sampling=LONG))
    engine.step()
    assert [status.stats.running for status in reports.due(100.0)] == [1]
    engine.step()
    assert reports.due(100.9) == []
    assert len(reports.due(101.0)) == 1
    engine.submit(Submit(id="b", prompt=[1], sampling=LONG))
    assert reports.due(101.05) == []
    assert [status.stats.waiting for status in reports.due(101.2)] == [1]
    engine.cancel("a")
    engine.cancel("b")
    assert [status.stats.running for status in reports.due(101.2)] == [0]
    assert reports.due(200.0) == []
