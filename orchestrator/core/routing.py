"""Rules that lead new tasks to other queues (contract, api §13.7). The name of a handler and its queue decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One rule.

    Args:
        match_queue: Only tasks of this queue; None for all, those without a queue too.
        queue_override: Where they go.
    """

    match_queue: str | None
    queue_override: str


Routes = Mapping[tuple[str, str], Sequence[Route]]
"""By tenant and handler; the rule that counts first comes first."""


def routed(routes: Routes, tenant_id: str, handler: str, queue: str | None) -> str | None:
    """Give the queue of a new task.

    >>> routes = {("t", "h"): [Route(match_queue="a", queue_override="b"), Route(match_queue=None, queue_override="c")]}
    >>> [routed(routes, "t", "h", queue) for queue in ("a", None)], routed(routes, "u", "h", None)
    (['b', 'c'], None)
    """
    for route in routes.get((tenant_id, handler), ()):
        if route.match_queue is None or route.match_queue == queue:
            return route.queue_override
    return queue
