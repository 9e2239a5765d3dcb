"""The disk of PostgreSQL is full under load: it refuses writes or goes down; with room on it again, all goes on."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator import embedded
from orchestrator.errors import StoreUnavailable
from tests.faults.long import only_long
from tests.faults.test_faults import IN_FLIGHT, Journey
from tests.support.small_disk import SmallDisk, mounted
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400), only_long]

MEGABYTES = 400
FULL_SECONDS = 10.0


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A small disk for the servers, where the account that runs them reaches it."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        try:
            with mounted(Path(directory, "servers"), megabytes=MEGABYTES) as disk:
                yield disk
        except PermissionError:
            pytest.skip("only root can mount a disk to fill")


@pytest.fixture
def journey(disk: SmallDisk) -> Iterator[Journey]:
    """A run whose servers are on the small disk, and that has come a part of its way."""
    workers = {"worker-1": WorkerSpec(), "worker-2": WorkerSpec()}
    with Stack.running(disk.folder.parent, workers=workers, with_api=True) as stack:
        made = Journey(stack, "the disk is full")
        made.start()
        made.wait_for_part()
        yield made


def test_the_disk_is_full(journey: Journey, disk: SmallDisk) -> None:
    stack = journey.stack
    with journey.hit(may_run_again=4 * IN_FLIGHT):
        with disk.full():
            wait_until(lambda: refuses_writes(stack), "PostgreSQL to find its disk full", within=60)
            time.sleep(FULL_SECONDS)
        embedded.start(stack.servers.directory, environment={})
        embedded.release(stack.servers.directory)
    journey.judge()


def refuses_writes(stack: Stack) -> bool:
    """Tell whether a write is refused: by an error, or because the server has gone down."""
    try:
        with stack.store.transaction() as tx:
            tx.execute("CREATE TABLE written AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            tx.execute("DROP TABLE written")
    except StoreUnavailable:
        return True
    return False
