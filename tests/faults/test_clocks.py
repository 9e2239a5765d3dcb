"""Wrong clocks: only that of PostgreSQL counts, so minutes and hours of error in any other process change nothing."""

from collections.abc import Iterator

import pytest

from tests.faults.test_faults import Journey
from tests.support.clocks import Clock, can_be_wrong, inherited
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not can_be_wrong(), reason="libfaketime has no library for this machine"),
]

TEN_MINUTES, HOUR, REDIS_ERROR = 600, 3600, 5


@pytest.fixture
def clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clock]:
    """Clocks of the processes: ten minutes fast or slow."""
    directory = tmp_path_factory.mktemp("clocks")
    errors = {"worker-1": TEN_MINUTES, "worker-2": -TEN_MINUTES, "service": TEN_MINUTES, "api": -TEN_MINUTES}
    return {name: Clock(directory / name, error) for name, error in errors.items()}


@pytest.fixture
def journey(tmp_path_factory: pytest.TempPathFactory, clocks: dict[str, Clock]) -> Iterator[Journey]:
    """A run under wrong clocks that has come a part of its way."""
    directory = tmp_path_factory.mktemp("wrong")
    with Stack.running(
        directory,
        workers={"worker-1": WorkerSpec(), "worker-2": WorkerSpec()},
        with_api=True,
        env_of=lambda name, _servers: clocks[name].environment,
    ) as stack:
        with inherited(REDIS_ERROR):
            stack.restart_redis()
        made = Journey(stack, "clocks are wrong and jump")
        made.start()
        made.wait_for_part()
        yield made


def test_clocks_are_wrong_and_jump(journey: Journey, clocks: dict[str, Clock]) -> None:
    with journey.hit():
        clocks["worker-1"].set(-HOUR)
        clocks["worker-2"].set(HOUR)
        clocks["service"].set(-HOUR)
        clocks["api"].set(HOUR)
        wait_until(lambda: seen(journey.stack) >= {-HOUR, HOUR}, "steps that run after the jumps")
    journey.judge()
    assert seen(journey.stack) == {TEN_MINUTES, -TEN_MINUTES, HOUR, -HOUR}
    assert redis_error(journey.stack) == REDIS_ERROR


def seen(stack: Stack) -> set[int]:
    """Say by how many seconds the clocks of those who ran steps were wrong."""
    return {round(each.clock_error) for each in stack.effects.executions()}


def redis_error(stack: Stack) -> int:
    """Say by how many seconds the clock of Redis is ahead of that of PostgreSQL."""
    [[now]] = stack.query("SELECT extract(epoch FROM clock_timestamp())::float8")
    return round(stack.redis_time() - float(now))
