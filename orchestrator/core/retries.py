"""When a failed attempt is tried again, and after how long (sequences contract §5.6)."""

from datetime import timedelta
from random import Random
from typing import Any

from orchestrator.core.conditions import holds
from orchestrator.core.model import Step
from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.core.turn import Turn
from sequences.document import Retry

FIRST_SERVER_ERROR = 500
TOO_MANY_REQUESTS = 429


def may_retry(turn: Turn, step: Step, failure: Failed, policy: Retry | None) -> bool:
    """Decide whether an attempt that failed is followed by another."""
    if policy is None or not failure.retryable or step.attempt + 1 >= policy.max_attempts:
        return False
    codes = _codes(failure)
    if any(code in codes for code in policy.non_retryable_codes or ()):
        return False
    if policy.retryable_errors is not None and not _is_listed(failure, codes, policy.retryable_errors):
        return False
    return policy.retry_if is None or _condition_holds(turn, step, failure, policy.retry_if)


def _codes(failure: Failed) -> list[str]:
    details = failure.details or {}
    return [str(details[name]) for name in ("error_code", "code", "status") if details.get(name) is not None]


def _is_listed(failure: Failed, codes: list[str], listed: tuple[str, ...] | list[str]) -> bool:
    classes = _classes(failure)
    return any(entry in codes or entry in classes or entry in failure.message for entry in map(str, listed))


def _classes(failure: Failed) -> set[str]:
    classes = {failure.kind.value} & {FailureKind.TIMEOUT.value, FailureKind.NETWORK.value}
    status = (failure.details or {}).get("status")
    if isinstance(status, int) and status >= FIRST_SERVER_ERROR:
        classes.add("5xx")
    if status == TOO_MANY_REQUESTS:
        classes.add("429")
    return classes


def _condition_holds(turn: Turn, step: Step, failure: Failed, condition: str) -> bool:
    error: dict[str, Any] = {"message": failure.message}
    if failure.details is not None:
        error["details"] = failure.details
    return holds(turn, step.key, condition, bindings={"_error": error})


def backoff(policy: Retry, attempt: int, random: Random) -> timedelta:
    """Give the wait after a failed attempt, counted from 0.

    `min(initial · multiplier^attempt, max)`, then jitter ±. Works for any attempt: the power is cut off before it can
    overflow.
    """
    initial = policy.initial_backoff.total_seconds()
    longest = policy.max_backoff.total_seconds()
    wait = initial
    for _ in range(attempt):
        wait *= policy.backoff_multiplier
        if wait >= longest or wait <= 0:
            break
    wait = min(wait, longest)
    if policy.jitter is not None:
        spread = policy.jitter.total_seconds()
        wait = max(0.0, wait + random.uniform(-spread, spread))
    return timedelta(seconds=wait)
