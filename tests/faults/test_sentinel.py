"""The primary of Redis is killed under load: Sentinels name its replica, and all goes on there."""

from collections.abc import Iterator

import pytest

from tests.faults.long import only_long
from tests.faults.test_faults import Journey
from tests.support.sentinels import Watched, watched
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400), only_long]


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary, its replica and who watches them."""
    with watched(tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


@pytest.fixture
def journey(tmp_path_factory: pytest.TempPathFactory, servers: Watched) -> Iterator[Journey]:
    """A run whose hints go through the primary, and that has come a part of its way."""
    workers = {"worker-1": WorkerSpec(), "worker-2": WorkerSpec()}
    with Stack.running(tmp_path_factory.mktemp("run"), workers=workers, with_api=True, broker=servers.url) as stack:
        made = Journey(stack, "the primary of redis is killed")
        made.start()
        made.wait_for_part()
        yield made


def test_the_primary_is_killed(journey: Journey, servers: Watched) -> None:
    former = servers.primary()
    assert former is not None
    with journey.hit():
        servers.kill(former)
        wait_until(lambda: servers.primary() not in {None, former}, "the Sentinels to name another primary", within=60)
    journey.judge()
