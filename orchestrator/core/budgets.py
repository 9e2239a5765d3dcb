"""The budget of an instance: checked before each step starts (sequences contract §9.6).

Known are the steps that were executed, the time that has passed, and the tokens that outputs have reported. A limit of
something that nothing reports is never exceeded, and a negative one does not count.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator.core.model import Step, Usage
from orchestrator.core.turn import Turn

REASON = "budget_exceeded"
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A limit that has been exceeded."""

    limit: str
    value: int
    actual: int

    def to_json(self) -> dict[str, Any]:
        """Give the form that stands in the metadata."""
        return {"limit": self.limit, "limit_value": self.value, "actual": self.actual}


def check(turn: Turn) -> None:
    """Stop the instance for a human if it has used more than it may: what would start now is held.

    One that is being cancelled is let finish what is shielded, or the cancel would never take effect.
    """
    if turn.instance.is_held or turn.instance.is_cancelling or turn.instance.budget is None:
        return
    breach = next(_breaches(turn, turn.instance.budget), None)
    if breach is not None:
        turn.amend(is_held=True, parked_reason=f"{REASON}: {breach.limit} is {breach.value}, used are {breach.actual}")
        turn.merge_metadata({"paused_reason": REASON, "budget_breach": breach.to_json()})


def _breaches(turn: Turn, budget: Mapping[str, int]) -> Iterator[Breach]:
    used = _used(turn)
    for limit, value in budget.items():
        actual = used.get(limit)
        if actual is not None and 0 <= value < actual:
            yield Breach(limit=limit, value=value, actual=actual)


def _used(turn: Turn) -> dict[str, int]:
    instance = turn.instance
    return {
        "max_input_tokens": instance.input_tokens,
        "max_output_tokens": instance.output_tokens,
        "max_total_tokens": instance.input_tokens + instance.output_tokens,
        "max_steps": instance.total_steps,
        "max_wall_time_ms": (turn.now - (instance.started_at or turn.now)) // _MILLISECOND,
    }


def record_usage(turn: Turn, step: Step, output: Any) -> None:
    """Write down the tokens that an output reports in its `usage`, and count them; none is no report."""
    usage = usage_in(output)
    if usage is None:
        return
    turn.amend(
        input_tokens=turn.instance.input_tokens + usage.input_tokens,
        output_tokens=turn.instance.output_tokens + usage.output_tokens,
    )
    turn.record_usage(step, usage)


def usage_in(output: Any) -> Usage | None:
    """Read what an output reports, by the names of either family of providers; None if that is nothing.

    Model and provider stand in `usage` or beside it, as in the outputs of model calls.

    >>> usage_in({"usage": {"prompt_tokens": 3}, "model": "m"})
    Usage(model='m', provider=None, input_tokens=3, output_tokens=0, kind='llm_tokens')
    >>> usage_in({"usage": {"input_tokens": 0}}) is None
    True
    """
    usage = output.get("usage") if isinstance(output, dict) else None
    if not isinstance(usage, dict):
        return None
    read = _tokens(usage, "input_tokens", "prompt_tokens")
    written = _tokens(usage, "output_tokens", "completion_tokens")
    if not read and not written:
        return None
    model = _name(usage.get("model")) or _name(output.get("model")) or UNKNOWN_MODEL
    provider = _name(usage.get("provider")) or _name(output.get("provider"))
    return Usage(model=model, provider=provider, input_tokens=read, output_tokens=written)


UNKNOWN_MODEL = "unknown"
MAX_NAME_CHARACTERS = 200


def _name(written: Any) -> str | None:
    return written.strip()[:MAX_NAME_CHARACTERS] or None if isinstance(written, str) else None


MAX_TOKENS = 2**40
"""More than any step can use: beyond that a number is a mistake, and sums must fit into 64 bits."""


def _tokens(usage: Mapping[str, Any], *names: str) -> int:
    for name in names:
        count = usage.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= MAX_TOKENS:
            return count
    return 0
