"""The points at which a run can be made to crash."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Point(StrEnum):
    """Where everything that runs dies: workers, service, whatever is in memory. The store stays.

    Three are commits that do not happen, three are commits whose answer is lost.
    """

    BEFORE_CLAIM = "before_claim"
    """The claim is not committed."""
    AFTER_CLAIM = "after_claim"
    """The claim is committed, and the worker never learns of it."""
    BEFORE_HANDLER = "before_handler"
    AFTER_HANDLER = "after_handler"
    """The handler has had its effect, and its result is lost."""
    BEFORE_COMMIT = "before_commit"
    """The outcome, and what follows from it, is written but not committed."""
    AFTER_COMMIT = "after_commit"
    """The outcome is committed; what the worker had claimed with it is lost."""
    BEFORE_TIMER = "before_timer"
    """A timer was due, and what follows from it is not committed."""
    AFTER_TIMER = "after_timer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """One passing of a point: at which step, the how many-eth of that point and step, when."""

    point: Point
    block_id: str
    nth: int
    at: datetime

    def __str__(self) -> str:
        nth = "" if self.nth == 1 else f", time {self.nth}"
        return f"{self.point} of `{self.block_id}`{nth}" if self.block_id else f"{self.point}{nth}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPlan:
    """One crash to come.

    Args:
        step: Block id; None for any step.
        nth: The how many-eth passing of the point by that step (or by any).
        reports_late: The worker that seemed dead sends its result after all, when its step was given to another, and
            once more in the end. Only after a handler.
    """

    point: Point
    step: str | None = None
    nth: int = 1
    reports_late: bool = False

    def __str__(self) -> str:
        where = "" if self.step is None else f" of `{self.step}`"
        nth = "" if self.nth == 1 else f", time {self.nth}"
        return f"{self.point}{where}{nth}" + (" (and a late report)" if self.reports_late else "")


def crash_at(point: Point | str, step: str | None = None, nth: int = 1, *, reports_late: bool = False) -> CrashPlan:
    """Plan a crash; see `CrashPlan`. Raises ValueError for a point that does not exist, naming those that do."""
    try:
        return CrashPlan(point=Point(point), step=step, nth=nth, reports_late=reports_late)
    except ValueError as error:
        raise ValueError(f"no crash point {point!r}; there are: {', '.join(Point)}") from error


class Crashed(BaseException):
    """Raised through everything that a crash ends. Not an Exception, so that nothing survives it by accident."""
