"""What a test lets happen to a run, and when.

signals=[
    at("2d", "pause"),                                         # two days after the start
    at(datetime(2026, 3, 5, 9, tzinfo=UTC), "resume"),
    at(waiting("approve"), answer("approve", "yes")),          # as soon as the step waits
    at(before("charge"), "cancel"),                            # just before it is claimed
    at(after("charge", 2), {"custom": "go"}, {"n": 1}),        # after its second execution was committed
    at(after("ship"), lambda run: run.retry()),
]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.testing.parts import length_of
from sequences.signals import HUMAN_INPUT_PREFIX

if TYPE_CHECKING:
    from orchestrator.testing.run import Run

Act = Callable[["Run"], object]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The step is open, and nothing but time or somebody outside will move it."""

    block_id: str


@dataclass(frozen=True, slots=True)
class Before:
    """The step is about to be claimed, for the n-th time."""

    block_id: str
    nth: int


@dataclass(frozen=True, slots=True)
class After:
    """The n-th outcome of the step was committed."""

    block_id: str
    nth: int


When = timedelta | datetime | Waiting | Before | After


def waiting(block_id: str) -> Waiting:
    """The moment a step waits: for a person, a worker that does not come, a delay, a window, its next attempt."""
    return Waiting(block_id)


def before(block_id: str, nth: int = 1) -> Before:
    """The moment before a step is claimed for the n-th time."""
    return Before(block_id, nth)


def after(block_id: str, nth: int = 1) -> After:
    """The moment after the n-th outcome of a step was committed."""
    return After(block_id, nth)


@dataclass(slots=True, kw_only=True)
class Planned:
    """One act at one moment; it happens once."""

    when: When
    act: Act
    name: str
    has_happened: bool = field(default=False)

    def __repr__(self) -> str:
        return f"at({self.when!r}, {self.name})"


def at(when: When | str, what: Act | str | Mapping[str, Any], payload: Any = None) -> Planned:
    """Plan what happens to a run.

    Args:
        when: A time (a duration after the start, or an aware datetime) or `waiting`, `before`, `after` a step.
        what: A signal (`"pause"`, `"resume"`, `"cancel"`, `"update_context"`, `{"custom": name}`), or anything that
            takes the run: `answer(...)`, or a function.
        payload: Of the signal.
    """
    moment = length_of(when) if isinstance(when, str) else when
    if callable(what):
        return Planned(when=moment, act=what, name=getattr(what, "__name__", repr(what)))
    return Planned(when=moment, act=lambda run: run.signal(what, payload), name=repr(what))


def answer(block_id: str, value: Any = "yes", **payload: Any) -> Act:
    """Answer the human gate of a step with one of its choices."""

    def act(run: "Run") -> None:
        run.signal({"custom": f"{HUMAN_INPUT_PREFIX}{block_id}"}, {"value": value, **payload})

    act.__name__ = f"answer({block_id!r}, {value!r})"
    return act
