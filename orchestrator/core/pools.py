"""Which resource of a pool a step gets: caps that rise while a resource warms up, and three ways to choose.

Days are dates of UTC. Usage counts for the day it was noted on, so the usage of an earlier day is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from random import Random
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of a pool.

    Args:
        daily_cap: Uses a day; 0 for any number.
        daily_usage: Uses on `daily_usage_date`.
        warmup_days: Days from `warmup_start` in which the cap rises from `warmup_start_cap`.
    """

    id: UUID
    pool_id: UUID
    resource_key: str
    name: str
    weight: int
    enabled: bool
    daily_cap: int
    daily_usage: int
    daily_usage_date: date | None
    warmup_start: date | None
    warmup_days: int
    warmup_start_cap: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The position of the resource among those given, and the pool's index after the choice."""

    position: int
    round_robin_index: int


@dataclass(frozen=True, slots=True)
class Empty:
    """No resource is enabled."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every enabled resource is at its cap for the day."""


def cap_on(resource: Resource, day: date) -> int | None:
    """Give how often a resource may be used on a day; None for any number.

    In the warm-up the cap rises from `warmup_start_cap` by even steps, rounded down (contract, sequences §13.5).

    >>> from types import SimpleNamespace as Made
    >>> warm = Made(daily_cap=100, warmup_start=date(2026, 3, 1), warmup_days=14, warmup_start_cap=10)
    >>> [cap_on(warm, date(2026, 3, day)) for day in (1, 8, 15)]
    [10, 55, 100]
    """
    cap = resource.daily_cap
    if cap == 0:
        return None
    if resource.warmup_start is None:
        return cap
    days = max(0, (day - resource.warmup_start).days)
    if days >= resource.warmup_days:
        return cap
    first = resource.warmup_start_cap
    return first + (cap - first) * days // resource.warmup_days


def is_available(resource: Resource, day: date) -> bool:
    """Tell whether a resource may be used once more on a day."""
    used = resource.daily_usage if resource.daily_usage_date == day else 0
    cap = cap_on(resource, day)
    return resource.enabled and (cap is None or used < cap)


def choose(
    resources: Sequence[Resource], strategy: str, round_robin_index: int, day: date, random: Random
) -> Chosen | Empty | Exhausted:
    """Choose one of the resources that may be used on a day.

    Args:
        resources: All of the pool, in the order of turns.
        strategy: `round_robin`, `weighted` (in proportion to the weights) or `random`.
        round_robin_index: How many choices were made in turn so far.
    """
    if not any(resource.enabled for resource in resources):
        return Empty()
    available = [position for position, resource in enumerate(resources) if is_available(resource, day)]
    if not available:
        return Exhausted()
    match strategy:
        case "weighted":
            weights = [resources[position].weight for position in available]
            return Chosen(position=random.choices(available, weights)[0], round_robin_index=round_robin_index)
        case "random":
            return Chosen(position=random.choice(available), round_robin_index=round_robin_index)
        case _:
            position = available[round_robin_index % len(available)]
            return Chosen(position=position, round_robin_index=round_robin_index + 1)
