"""The short form of the rolling upgrade, and what its judge would notice."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.long import only_long
from tests.faults.upgrade import STALL_SECONDS, Phase, newest_with_other_schema, of_phase, rehearse


@only_long
@pytest.mark.fault
@pytest.mark.timeout(500)
def test_an_upgrade_and_its_roll_back_are_no_fault() -> None:
    ref = newest_with_other_schema()
    if ref is None:
        pytest.skip("the repository has no older commit with another schema")
    directory = Path(tempfile.mkdtemp(prefix="upgrade-"))
    try:
        assert not rehearse(directory, ref, instances=10, rows=5000)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_a_version_that_does_nothing_would_be_noticed() -> None:
    phase = Phase(name="both", least={"old": 2, "new": 2}, began_at=0.0, ended_at=10.0)
    steady = [("old", moment / 2) for moment in range(20)]
    assert of_phase(phase, [*steady, ("new", 1.0), ("new", 2.0)]) == []
    assert of_phase(phase, [*steady, ("new", 1.0), ("new", 11.0)]) == [
        "both: 1 steps of the new version, expected 2",
    ]


def test_a_migration_that_stops_all_work_would_be_noticed() -> None:
    phase = Phase(name="migration", least={"old": 1}, began_at=0.0, ended_at=2 * STALL_SECONDS)
    assert of_phase(phase, [("old", 0.5)]) == [f"migration: no step was completed for {2 * STALL_SECONDS - 0.5:.1f} s"]
