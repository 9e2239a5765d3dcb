"""What `/metrics` counts: the whole installation, over all its processes and their restarts (contract, api §4)."""

from datetime import timedelta

import httpx
import pytest

from orchestrator.api.app import create_app
from orchestrator.engine import Engine
from orchestrator.loops import Durations
from orchestrator.meter import Meter
from orchestrator.settings import Settings
from orchestrator.store import observed
from orchestrator.store.postgres import postgres_of
from orchestrator.store.session import Store
from tests.contract.client import CALL, Api, step
from tests.support.serving import serving


def _read(address: str) -> dict[str, float]:
    answer = httpx.get(f"{address}/metrics", headers={"X-Tenant-Id": "acme"}, **CALL)
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _work(api: Api) -> None:
    """Complete an instance of two steps, fail another one, signal it."""
    api.start(step("a", "noop"), step("b", "noop"))
    api.run_builtins()
    failing = api.start(step("a"))
    api.signal(failing, {"custom": "x"})
    api.fail()


COUNTS = {
    "orch8_instances_claimed_total": 3,
    "orch8_instances_completed_total": 1,
    "orch8_instances_failed_total": 1,
    "orch8_steps_executed_total": 2,
    "orch8_steps_failed_total": 1,
    "orch8_signals_delivered_total": 1,
    "orch8_step_duration_seconds_count": 3,
    'orch8_step_duration_seconds_bucket{le="+Inf"}': 3,
    "orch8_instance_processing_seconds_count": 2,
}


def test_api_4_every_api_process_shows_the_whole_installation(api: Api, engine: Engine, settings: Settings) -> None:
    _work(api)
    with serving(create_app(engine, settings)) as other:
        for address in (api.root, other):
            found = _read(address)
            assert {name: found[name] for name in COUNTS} == COUNTS
            assert 0 < found["orch8_step_duration_seconds_sum"] < 3600


def test_api_4_what_is_put_aside_is_counted_once(
    api: Api, engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "FOLD_AFTER", timedelta(0))
    monkeypatch.setattr(observed, "_OPEN_FOR", "interval '0 seconds'")
    durations = Durations()
    meter = Meter(postgres_of(store), durations)
    _work(api)
    durations.note(0.02)
    meter.tick()
    meter.tick()
    found = _read(api.root)
    assert {name: found[name] for name in COUNTS} == COUNTS
    assert found["orch8_tick_duration_seconds_count"] == 1
    assert found['orch8_tick_duration_seconds_bucket{le="0.01"}'] == 0
    assert found['orch8_tick_duration_seconds_bucket{le="0.025"}'] == 1
    with store.transaction() as tx:  # as the retention does, long after
        tx.execute("DELETE FROM attempts; DELETE FROM transitions")
    kept = _read(api.root)
    assert {name: kept[name] for name in COUNTS} == COUNTS
    _work(api)
    again = _read(api.root)
    assert {name: again[name] for name in COUNTS} == {name: 2 * count for name, count in COUNTS.items()}


@pytest.mark.needs_own_server("it sees what others do, too")
def test_api_4_rows_dropped_by_loops_are_counted(api: Api) -> None:
    body = step("a", "noop")
    api.start(
        {"type": "loop", "id": "l", "condition": "true", "max_iterations": 5, "retain_iterations": 2, "body": [body]}
    )
    api.run_builtins()
    assert _read(api.root)["orch8_loop_outputs_compacted_total"] == 3
