"""The short form runs, writes what it promises, and is not absurdly slow. Nothing here depends on the machine."""

from dataclasses import replace
from operator import ge
from pathlib import Path

import orjson
import pytest

from tests.benchmarks.__main__ import write
from tests.benchmarks.figures import BARS, FASTEST, GROWTH, OURS, Figure, all_met, check_bars
from tests.benchmarks.handlers import PLAIN
from tests.benchmarks.machine import NotDurable, check_durability, check_filesystem
from tests.benchmarks.plots import draw
from tests.benchmarks.run import run
from tests.benchmarks.works import SHORT, UNITS, Sleepers

pytestmark = pytest.mark.bench

FIELDS = {"name", "value", "unit", "spread", "engine", "versions"}
VERSIONS = {"python", "postgres", "celery", "cpu", "cores"}


def figures(**values: float) -> list[Figure]:
    """Make figures of ours that meet every bar, but for the given values; `restate` is that peer's W1."""
    peer = values.pop(FASTEST, None)
    good = {name: bar * 2 if holds is ge else bar / 2 for name, holds, bar in BARS}
    good |= dict.fromkeys(("W4_first_ms", "W4_last_ms", "W4_long_first_ms", "W4_long_last_ms"), 0.5)
    rows = [(OURS, name, value) for name, value in (good | values).items()]
    rows += [(FASTEST, "W1", peer)] if peer is not None else []
    return [
        Figure(name=name, value=value, unit=UNITS[name], spread=(value, value), engine=engine, versions={})
        for engine, name, value in rows
    ]


TINY = replace(
    SHORT,
    repeats=1,
    w4_long=4_000,
    w5=(300, 1_000),
    w6=15,
    w7=Sleepers(asleep=10_000, idle_seconds=2.0, due_seconds=2),
    w8_seconds=2.0,
    w9_megabytes=50,
)


@pytest.mark.timeout(300)
def test_short_form_writes_every_figure_once(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    write(out, run(TINY, lambda _text: None, handler=PLAIN, peers=(), with_own=True, folder=tmp_path))
    found = orjson.loads(out.read_bytes())

    assert [(row["name"], row["unit"]) for row in found] == list(UNITS.items())
    for row in found:
        assert row.keys() == FIELDS
        assert row["engine"] == OURS
        assert row["versions"].keys() >= VERSIONS
        low, high = row["spread"]
        assert low <= row["value"] <= high
        assert low > 0 or row["unit"].startswith("%"), "a loss may be a gain, by chance"
    values = {row["name"]: row["value"] for row in found}
    assert values["W2_p50_ms"] <= values["W2_p99_ms"]
    assert values["W4_last_ms"] <= 3 * values["W4_first_ms"]
    assert values["W1"] > 1000 / values["W2_p50_ms"] / 3, "two workers and batches cannot be far slower than one step"


def test_bars_are_met_by_good_figures() -> None:
    assert all_met(check_bars(figures(restate=3900)))


@pytest.mark.parametrize(
    "bad",
    [
        {"W1": 4900},
        {"restate": 8000},
        {"W2_p50_ms": 0.7},
        {"W2_p99_ms": 2.1},
        {"W3_s": 0.2},
        {"W4_first_ms": 0.7},
        {"W4_last_ms": 0.6},
        {"W5_batch": 2_900},
        {"W7_idle_core_pct": 6},
    ],
)
def test_each_bar_can_be_missed(bad: dict[str, float]) -> None:
    assert not all_met(check_bars(figures(**bad)))


def test_each_figure_of_ours_has_a_bar_or_is_half_of_one() -> None:
    assert UNITS.keys() == {name for name, _, _ in BARS} | {name for pair in GROWTH for name in pair}


def test_figures_are_drawn_for_people_and_for_pages(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = draw(figures(restate=3900), tmp_path)
    assert {file.suffix for file in files} == {".png", ".svg"}
    assert b"Works of ours against their bars" in (tmp_path / "bench-own.svg").read_bytes()


def test_peer_that_was_not_measured_is_said_to_be_unchecked() -> None:
    assert [verdict.is_met for verdict in check_bars(figures())].count(None) == 1


def test_database_that_does_not_flush_is_refused(database_url: str) -> None:
    check_durability(database_url)
    careless = database_url + "&options=-csynchronous_commit%3Doff"
    with pytest.raises(NotDurable, match="synchronous_commit = off"):
        check_durability(careless)


def test_data_in_memory_is_refused() -> None:
    with pytest.raises(NotDurable, match="tmpfs"):
        check_filesystem(Path("/dev/shm"))
