"""Built-in handlers that only look at their params: noop, log, sleep, fail. Source: sequence language contract §11."""

import math
from datetime import timedelta
from typing import Any, Final

import orjson

from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended
from workers.context import StepContext
from workers.failures import failed
from workers.handlers.params import members, wrong_input

LEVELS: Final = frozenset({"debug", "info", "warn"})
MAX_SLEEP_MS: Final = 10 * 365 * 24 * 3600 * 1000
"""Ten years: beyond that a number is a mistake, and date arithmetic ends."""


def noop(params: Any) -> Outcome:
    """Do nothing."""
    return Completed(output={})


def log(ctx: StepContext, params: Any) -> Outcome:
    """Write a line to the instance's log; an unknown level counts as `info`."""
    given = members(params)
    message = given.get("message", "no message")
    level = given.get("level")
    ctx.log(message, level=level if isinstance(level, str) and level in LEVELS else "info")
    return Completed(output={"message": message})


def sleep(params: Any) -> Outcome:
    """Ask to be completed later; meanwhile no worker is held."""
    duration_ms = _milliseconds(members(params).get("duration_ms", 100))
    if isinstance(duration_ms, Failed):
        return duration_ms
    return Suspended(duration=timedelta(milliseconds=duration_ms), output={"slept_ms": duration_ms})


def fail(params: Any) -> Outcome:
    """Fail, as told."""
    given = members(params)
    message = given.get("message", "forced failure")
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return failed(text, retryable=given.get("retryable") is True)


def _milliseconds(value: Any) -> int | Failed:
    """Read a number of milliseconds; templates and expressions may give a float or digits in a string."""
    if value is None:
        return 100
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MAX_SLEEP_MS:
        return wrong_input(f"duration_ms must be a number from 0 to {MAX_SLEEP_MS}")
    return round(number)
