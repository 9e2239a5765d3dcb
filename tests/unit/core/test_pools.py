"""Choosing a resource of a pool: caps, warm-up, the three ways to choose (sequences §13.5)."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.pools import Chosen, Empty, Exhausted, Resource, cap_on, choose, is_available

DAY = date(2026, 3, 8)
MOST = 2**31 - 1
naturals = st.integers(0, MOST)


PLAIN = Resource(
    id=UUID(int=1),
    pool_id=UUID(int=2),
    resource_key="k",
    name="n",
    weight=1,
    enabled=True,
    daily_cap=0,
    daily_usage=0,
    daily_usage_date=None,
    warmup_start=None,
    warmup_days=0,
    warmup_start_cap=0,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def made(**fields: Any) -> Resource:
    """A resource of which only this is said."""
    return replace(PLAIN, **fields)


resources = st.builds(
    made,
    weight=st.integers(1, MOST),
    enabled=st.booleans(),
    daily_cap=naturals,
    daily_usage=naturals,
    daily_usage_date=st.none() | st.dates(DAY - timedelta(2), DAY + timedelta(2)),
    warmup_start=st.none() | st.dates(),
    warmup_days=naturals,
    warmup_start_cap=naturals,
)


def test_s13_5_cap_is_none_without_one_and_half_way_on_day_7_of_14():
    assert cap_on(made(warmup_start=DAY, warmup_days=14, warmup_start_cap=5), DAY) is None
    assert cap_on(made(daily_cap=7), DAY) == 7
    warm = made(daily_cap=110, warmup_start=DAY - timedelta(7), warmup_days=14, warmup_start_cap=10)
    assert cap_on(warm, DAY) == 60
    assert [cap_on(warm, DAY + timedelta(days)) for days in (-100, -7, 6, 7, 1000)] == [10, 10, 102, 110, 110]


@given(resource=resources, day=st.dates())
def test_s13_5_cap_stays_between_its_ends_and_rises_by_the_day(resource: Resource, day: date):
    cap = cap_on(resource, day)
    assert (cap is None) == (resource.daily_cap == 0)
    if cap is not None:
        ends = (resource.warmup_start_cap, resource.daily_cap)
        assert cap == resource.daily_cap or min(ends) <= cap <= max(ends)
        if resource.warmup_start_cap <= resource.daily_cap and day < date.max:
            assert cap <= (cap_on(resource, day + timedelta(1)) or 0)


def test_s13_5_usage_of_another_day_counts_nothing():
    used = made(daily_cap=3, daily_usage=3, daily_usage_date=DAY)
    assert [is_available(used, DAY + timedelta(days)) for days in (-1, 0, 1)] == [True, False, True]
    assert is_available(made(daily_usage=MOST, daily_usage_date=DAY), DAY)
    assert not is_available(made(enabled=False), DAY)


@given(pool=st.lists(resources, max_size=6), index=st.integers(0, 2**62), seed=st.integers())
@pytest.mark.parametrize("strategy", ["round_robin", "weighted", "random"])
def test_s13_5_choice_is_available_empty_or_exhausted(strategy: str, pool: list[Resource], index: int, seed: int):
    match choose(pool, strategy, index, DAY, Random(seed)):
        case Chosen(position=position, round_robin_index=after):
            assert is_available(pool[position], DAY)
            assert after - index == (strategy == "round_robin")
        case Empty():
            assert not any(each.enabled for each in pool)
        case Exhausted():
            assert any(each.enabled for each in pool)
            assert not any(is_available(each, DAY) for each in pool)


def positions(pool: list[Resource], strategy: str, times: int) -> list[int]:
    index, random, found = 0, Random(7), []
    for _ in range(times):
        chosen = choose(pool, strategy, index, DAY, random)
        assert isinstance(chosen, Chosen)
        index = chosen.round_robin_index
        found.append(chosen.position)
    return found


def test_s13_5_each_strategy_shares_out_as_it_says():
    pool = [made(weight=1), made(enabled=False, weight=9), made(weight=3), made(weight=6)]
    assert positions(pool, "round_robin", 7) == [0, 2, 3, 0, 2, 3, 0]
    weighted, uniform = Counter(positions(pool, "weighted", 3000)), Counter(positions(pool, "random", 3000))
    assert [round(weighted[each] / 300) for each in (0, 1, 2, 3)] == [1, 0, 3, 6]
    assert [round(uniform[each] / 1000) for each in (0, 1, 2, 3)] == [1, 0, 1, 1]
