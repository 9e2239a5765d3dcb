"""The bars on recovery, for five kills; `make recovery` takes two hundred."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.long import only_long
from tests.faults.recovery import (
    FLUSH_SECONDS,
    KILL_SECONDS,
    QUEUES,
    SILENT_SECONDS,
    VICTIMS,
    flush,
    installation,
    kill_victims,
)
from tests.faults.slowness import measured

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]


@only_long
def test_work_of_the_dead_and_emptied_queues_move_again_in_time(tmp_path: Path) -> None:
    with installation(tmp_path / "stack") as stack, measured() as slowness:
        killed, flushed = kill_victims(stack), flush(stack)
    print(f"killed {killed}, flushed {flushed}, machine {slowness.factor:.1f} times slower")
    assert len(killed) >= len(VICTIMS)
    assert len(flushed) == len(QUEUES)
    waiting, working = timedelta(seconds=SILENT_SECONDS), timedelta(seconds=KILL_SECONDS - SILENT_SECONDS)
    assert max(killed) <= slowness.stretched(waiting, working).total_seconds()
    assert max(flushed) <= slowness.stretched(timedelta(0), timedelta(seconds=FLUSH_SECONDS)).total_seconds()
