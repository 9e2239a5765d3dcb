"""What the world adds to a decision."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from orchestrator.core.routing import Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the world adds to a decision.

    Args:
        now: The database's clock, UTC.
        new_id: Makes ids that sort by the moment they are given.
        random: Source of jitter and of `random()` in expressions.
        max_context_bytes: Limit of the serialized data and config sections; a merge over it fails the step.
        max_losses: Workers that may die with a step before it is parked as poison.
        known_handlers: Handlers, beside the built-in ones, that a living worker of ours runs.
        first_wait: How long the first pick-up of a new instance waits for signals that follow its creation.
        routes: Rules that lead new tasks to other queues.
        webhook_urls: Addresses that are told of ends of instances and of breaches of their SLA.
    """

    now: datetime
    new_id: Callable[[datetime], UUID]
    random: Random
    max_context_bytes: int = 262_144
    max_losses: int = 3
    known_handlers: Collection[str] = frozenset()
    first_wait: timedelta = timedelta(0)
    routes: Routes = field(default_factory=dict)
    webhook_urls: tuple[str, ...] = ()
