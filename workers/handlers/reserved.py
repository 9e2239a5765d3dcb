"""Names of built-in handlers that are not built yet.

They are registered all the same: an unknown name becomes a task in a worker queue, and there such a step would wait for
ever.
"""

from collections.abc import Callable
from typing import Any

from orchestrator.core.outcomes import Outcome
from workers.failures import failed


def not_built_yet(name: str) -> Callable[[Any], Outcome]:
    """Return the handler that says that `name` is not built yet."""

    def refuse(params: Any) -> Outcome:
        return failed(f"handler `{name}` is not built yet", retryable=False)

    return refuse
