"""Jobs that arrive together are worked on together, and a lone one waits for nobody."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from orchestrator.api.gathering import Gatherer, Gatherers, together_or_alone
from orchestrator.errors import StoreUnavailable

LIMIT_SECONDS = 30.0


class Work:
    """Doubles numbers when it is let; remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may_end = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(jobs))
        assert self.may_end.wait(LIMIT_SECONDS)
        return [ValueError(job) if job < 0 else 2 * job for job in jobs]


async def _until_begun(work: Work, groups: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(work.groups) < groups:
            await asyncio.sleep(0.001)


async def _asked(gatherer: Gatherer[int, int], work: Work, jobs: Sequence[int]) -> list[int | BaseException]:
    """Have the first job begin alone, the others arrive while it is under way."""
    first = asyncio.create_task(gatherer.do(work, jobs[0]))
    await _until_begun(work, 1)
    others = [asyncio.create_task(gatherer.do(work, job)) for job in jobs[1:]]
    await asyncio.sleep(0)
    work.may_end.set()
    async with asyncio.timeout(LIMIT_SECONDS):
        return await asyncio.gather(first, *others, return_exceptions=True)


def test_a_lone_job_begins_at_once_and_those_behind_it_go_together() -> None:
    work = Work()
    assert asyncio.run(_asked(Gatherer(at_once=1), work, [1, 2, 3, 4])) == [2, 4, 6, 8]
    assert work.groups == [[1], [2, 3, 4]]


def test_a_group_has_a_size() -> None:
    work = Work()
    asyncio.run(_asked(Gatherer(at_once=1, most=2), work, [1, 2, 3, 4]))
    assert work.groups == [[1], [2, 3], [4]]


@pytest.mark.parametrize("comes_late", [False, True])
def test_a_second_group_is_begun_beside_one_that_takes_long(*, comes_late: bool) -> None:
    work = Work()

    async def begin_two() -> None:
        gatherer: Gatherer[int, int] = Gatherer(at_once=2, patience=0.01)
        tasks = [asyncio.create_task(gatherer.do(work, 1))]
        await _until_begun(work, 1)
        if comes_late:
            await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(gatherer.do(work, 2)))
        await _until_begun(work, 2)
        tasks += [asyncio.create_task(gatherer.do(work, job)) for job in (3, 4)]
        await asyncio.sleep(0.05)
        work.may_end.set()
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
            assert await gatherer.do(work, 5) == 10

    asyncio.run(begin_two())
    assert work.groups == [[1], [2], [3, 4], [5]]


def test_a_job_that_comes_as_a_group_ends_is_done() -> None:
    work = Work()
    work.may_end.set()

    async def one_after_the_other(gatherer: Gatherer[int, int]) -> None:
        for job in range(200):
            assert await gatherer.do(work, job) == 2 * job

    async def ask() -> None:
        gatherer: Gatherer[int, int] = Gatherer(at_once=1)
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.gather(*(one_after_the_other(gatherer) for _ in range(3)))

    asyncio.run(ask())


def test_a_job_fails_alone() -> None:
    found = asyncio.run(_asked(Gatherer(at_once=1), Work(), [1, 2, -3, 4]))
    assert [type(each) for each in found] == [int, int, ValueError, int]


def test_work_that_fails_as_a_whole_fails_each_job_of_its_group_and_no_other() -> None:
    work = Work()

    def fail_with_a_two(jobs: Sequence[int]) -> list[int | Exception]:
        done = work(jobs)
        if 2 in jobs:
            raise RuntimeError("broken")
        return done

    async def ask() -> list[int | BaseException]:
        gatherer: Gatherer[int, int] = Gatherer(at_once=1)
        first = asyncio.create_task(gatherer.do(fail_with_a_two, 1))
        await _until_begun(work, 1)
        second = [asyncio.create_task(gatherer.do(fail_with_a_two, job)) for job in (2, 3)]
        await asyncio.sleep(0)
        work.may_end.set()
        found = await asyncio.gather(first, *second, return_exceptions=True)
        return [*found, await gatherer.do(fail_with_a_two, 4)]

    found = asyncio.run(ask())
    assert found[0] == 2
    assert [type(each) for each in found[1:3]] == [RuntimeError, RuntimeError]
    assert found[3] == 8


def test_whoever_has_gone_does_not_stop_the_others() -> None:
    work = Work()

    async def ask() -> int:
        gatherer: Gatherer[int, int] = Gatherer(at_once=1)
        gone = asyncio.create_task(gatherer.do(work, 1))
        await _until_begun(work, 1)
        other = asyncio.create_task(gatherer.do(work, 2))
        gone.cancel()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await other

    assert asyncio.run(ask()) == 4


def test_jobs_of_two_kinds_are_not_worked_on_together() -> None:
    work = Work()

    async def ask() -> int:
        gatherers: Gatherers[str, int, int] = Gatherers(at_once=1)
        first = asyncio.create_task(gatherers.do("odd", work, 1))
        await _until_begun(work, 1)
        others = [asyncio.create_task(gatherers.do("even" if n % 2 == 0 else "odd", work, n)) for n in (2, 3, 5)]
        await _until_begun(work, 2)
        work.may_end.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 10]
        return len(gatherers)

    assert asyncio.run(ask()) == 0, "a kind of which nobody waits for a job is forgotten"
    assert work.groups == [[1], [2], [3, 5]]


def test_a_kind_is_forgotten_when_all_have_gone() -> None:
    work = Work()

    async def ask() -> int:
        gatherers: Gatherers[str, int, int] = Gatherers(at_once=1)
        waiting = [asyncio.create_task(gatherers.do("kind", work, n)) for n in (1, -2)]
        await _until_begun(work, 1)
        waiting[0].cancel()
        work.may_end.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [asyncio.CancelledError, ValueError]
        return len(gatherers)

    assert asyncio.run(ask()) == 0


def test_jobs_that_fail_together_are_done_alone() -> None:
    groups: list[Sequence[int]] = []

    def halve(jobs: Sequence[int]) -> list[int]:
        groups.append(jobs)
        if any(job % 2 for job in jobs):
            raise ValueError("odd")
        return [job // 2 for job in jobs]

    assert together_or_alone(halve, [2, 4]) == [1, 2]
    first, refused, last = together_or_alone(halve, [2, 3, 4])
    assert (first, type(refused), last) == (1, ValueError, 2)
    assert groups == [[2, 4], [2, 3, 4], [2], [3], [4]]


def test_jobs_of_which_nothing_is_known_are_not_done_again() -> None:
    groups: list[Sequence[int]] = []

    def lose(jobs: Sequence[int]) -> list[int]:
        groups.append(jobs)
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        together_or_alone(lose, [1, 2])
    assert groups == [[1, 2]]
