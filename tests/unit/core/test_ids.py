"""Ids sort by the moment they are made for, and by the order in which one process makes them."""

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from orchestrator.core.ids import IdMaker

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def test_many_ids_of_one_moment_sort_in_the_order_they_were_made() -> None:
    """A decision may write tens of thousands of rows: the newest of a block must be the last one."""
    make = IdMaker(Random(1))
    ids = [make(MOMENT) for _ in range(40_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_made_together_sort_between_those_before_and_after_them() -> None:
    make = IdMaker(Random(1))
    ids = [make(MOMENT), *make.many(MOMENT, 40_000), make(MOMENT), *make.many(MOMENT, 2)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert make.many(MOMENT, 0) == []
    assert all(each == UUID(str(each)) and each.version == 7 for each in ids[-5:])


def test_ids_of_different_processes_sort_by_the_microsecond() -> None:
    makers = [IdMaker(Random(seed)) for seed in range(50)]
    ids = [make(MOMENT + number * timedelta(microseconds=1)) for number, make in enumerate(makers)]
    assert ids == sorted(ids)
    assert all(each.version == 7 and each.variant == "specified in RFC 4122" for each in ids)
