"""The short form of the steady load, and the controls of what judges it."""

import json
from pathlib import Path

import pytest

from tests.soak.__main__ import main
from tests.soak.samples import Sample
from tests.soak.verdict import judge

SECONDS = 8.0


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_a_steady_load_is_told_and_drawn(tmp_path: Path) -> None:
    assert main(["--hours", str(SECONDS / 3600), "--every", "1", "--per-second", "10", "--folder", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "soak.json").read_text())
    assert kept["samples"][-1]["accepted"] >= 5 * SECONDS
    assert kept["samples"][-1]["Redis keys"] >= 1
    assert {"MB of worker-1", "MB of flower"} <= kept["samples"][0].keys()
    assert "nothing grows" in (tmp_path / "soak.md").read_text()
    assert (tmp_path / "soak.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "soak.svg").read_text()


def hours(count: int, **per_hour: float) -> list[Sample]:
    """Give samples of so many hours, ten in each; what is named grows by so much of 100 in each hour."""
    flat = {"MB of worker": 100.0, "PostgreSQL connections": 20.0, "PostgreSQL dead rows": 1e5, "Redis keys": 100.0}
    return [
        {
            **{name: value + value * per_hour.get(name.split()[-1], 0.0) * each / 10 for name, value in flat.items()},
            "hours": each / 10,
            "accepted": 100.0 * each,
        }
        for each in range(10 * count)
    ]


BASE = {"Redis MB": 2.0}
RESTING = {"Redis MB": 2.5, "PostgreSQL deadlocks": 0.0, "Redis keys for ever": 0.0, "open": 0.0, "failed": 0.0}


@pytest.mark.parametrize("count", [1, 24])
def test_what_is_flat_is_sound(count: int) -> None:
    assert judge(hours(count), RESTING, BASE) == []


def test_memory_may_grow_a_little() -> None:
    assert judge(hours(24, worker=0.005), RESTING, BASE) == []


@pytest.mark.parametrize(
    ("count", "name", "per_hour"),
    [(24, "worker", 0.02), (1, "worker", 9.0), (24, "rows", 0.2), (24, "keys", 0.2), (24, "connections", 0.2)],
)
def test_control_what_grows_is_noticed(count: int, name: str, per_hour: float) -> None:
    [wrong] = judge(hours(count, **{name: per_hour}), RESTING, BASE)
    assert name in wrong


@pytest.mark.parametrize("name", ["PostgreSQL deadlocks", "Redis keys for ever", "open", "failed"])
def test_control_what_must_not_be_is_noticed(name: str) -> None:
    assert judge(hours(24), {**RESTING, name: 1.0}, BASE) == [f"{name}: 1, expected none"]


def test_control_memory_of_redis_must_be_given_back() -> None:
    [wrong] = judge(hours(24), {**RESTING, "Redis MB": 5.0}, BASE)
    assert "5.0 MB at rest" in wrong


def test_control_a_run_that_did_nothing_is_not_sound() -> None:
    assert judge([{**each, "accepted": 7.0} for each in hours(24)], RESTING, BASE) == [
        "nothing was accepted under load"
    ]
    assert "too few" in judge([], RESTING, BASE)[0]
