"""The database's clock as a process carries it forward: slow answers must not move it."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.clock import DatabaseClock, MachineTime

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A database and a process, each with a clock; the process's stands at 50 when the database's stands at 0."""

    def __init__(self) -> None:
        self.seconds = 50.0
        self.clock = DatabaseClock(MachineTime(monotonic=self.monotonic))

    def monotonic(self) -> float:
        return self.seconds

    def ask(self, *, there: float, back: float, step: float = 0) -> None:
        """Ask for the time; the question and the answer take so many seconds."""
        asked_at = self.seconds
        self.seconds += there
        told = self.true_time() + timedelta(seconds=step)
        self.seconds += back
        self.clock.set(told, asked_at)

    def true_time(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds - 50)

    def error(self) -> float:
        now = self.clock.now()
        assert now is not None
        return (now - self.true_time()).total_seconds()


@pytest.fixture
def world() -> World:
    return World()


def test_it_knows_nothing_before_it_was_told(world: World) -> None:
    assert world.clock.now() is None


def test_an_answer_that_comes_late_does_not_set_it_back(world: World) -> None:
    world.ask(there=0.001, back=0.001)
    world.ask(there=0.001, back=5)
    assert world.error() == pytest.approx(-0.001)


def test_a_question_that_waits_does_not_set_it_ahead(world: World) -> None:
    world.ask(there=0.001, back=0.001)
    world.ask(there=5, back=0.001)
    assert world.error() == pytest.approx(-0.001)


def test_the_quickest_answer_decides(world: World) -> None:
    world.ask(there=1, back=2)
    assert world.error() == pytest.approx(-2)
    world.ask(there=0.001, back=0.002)
    assert world.error() == pytest.approx(-0.002)


@pytest.mark.parametrize("step", [3600, -3600])
def test_it_follows_a_database_whose_clock_is_set(world: World, step: int) -> None:
    world.ask(there=0.001, back=0.001)
    world.ask(there=0.001, back=0.001, step=step)
    assert world.error() == pytest.approx(step, abs=0.002)
