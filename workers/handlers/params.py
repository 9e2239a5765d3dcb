"""What the built-in handlers share in reading their params.

They are lenient, as the public engine is: params that are no object count as none, unknown members are ignored.
"""

from typing import Any, TypeGuard

from orchestrator.core.outcomes import Failed, FailureKind
from workers.failures import failed


def members(params: Any) -> dict[str, Any]:
    """Return the params object, `{}` for anything else."""
    return params if isinstance(params, dict) else {}


def wrong_input(message: str) -> Failed:
    """Return the permanent failure of a step whose params cannot work."""
    return failed(message, retryable=False, kind=FailureKind.INPUT)


def missing(name: str, what: str = "") -> Failed:
    """Return the failure for an absent member; `what` says what it must be.

    >>> missing("values", "must be an object").message
    'missing required param: values (must be an object)'
    """
    return wrong_input(f"missing required param: {name}" + (f" ({what})" if what else ""))


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether the value is a non-empty string, as keys and addresses must be."""
    return isinstance(value, str) and value != ""
