"""Group commit: what arrives while one transaction is under way goes into the next one together."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import anyio.to_thread
import structlog

from orchestrator.errors import StoreUnavailable

log = structlog.get_logger()

Key = TypeVar("Key", bound=Hashable)
Job = TypeVar("Job")
Result = TypeVar("Result")

AT_ONCE = 2
"""Groups worked on at the same time, the second one beside one that takes long."""
PATIENCE_SECONDS = 0.05
"""A group that is under way for longer takes long: it may wait for rows that others hold."""
MOST = 100
"""Jobs of one group."""


class Gatherer(Generic[Job, Result]):
    """Works jobs off in groups, in threads. For one event loop.

    A lone job is begun at once: a group is what has come while others were worked on, never what was waited for. While
    one is under way the next one gathers, unless that takes long: the larger they are, the less each job costs.

    Args:
        at_once: Groups worked on at the same time.
        most: Jobs of one group.
        patience: Seconds after which another group is begun beside one that is under way.
    """

    def __init__(self, at_once: int = AT_ONCE, most: int = MOST, patience: float = PATIENCE_SECONDS) -> None:
        self._at_once = at_once
        self._most = most
        self._patience = patience
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._under_way: set[asyncio.Task[None] | None] = set()
        self._taking_long = 0

    async def do(self, work: Callable[[Sequence[Job]], Sequence[Result | Exception]], job: Job) -> Result:
        """Have a job done, and give its result; raises what the work gives, or raises, in its place.

        Args:
            work: Gives a result, or an exception, for each job; the same for all jobs of one gatherer.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, done))
        self._begin_another(work)
        return await done

    def _begin_another(self, work: Callable[[Sequence[Job]], Sequence[Result | Exception]]) -> None:
        """Begin to work off what waits, if all that is under way takes long, and another group may be begun."""
        if self._waiting and self._taking_long == len(self._under_way) < self._at_once:
            self._under_way.add(asyncio.create_task(self._work_off(work)))

    async def _work_off(self, work: Callable[[Sequence[Job]], Sequence[Result | Exception]]) -> None:
        try:
            while self._waiting:
                await self._work_off_one(work)
        finally:
            # Not when the task is found to be done: who comes in between would wait for a group that never comes.
            self._under_way.discard(asyncio.current_task())

    async def _work_off_one(self, work: Callable[[Sequence[Job]], Sequence[Result | Exception]]) -> None:
        group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        with self._timed(work):
            outcomes = await _worked(work, [job for job, _ in group])
        for (_, done), outcome in zip(group, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

    @contextmanager
    def _timed(self, work: Callable[[Sequence[Job]], Sequence[Result | Exception]]) -> Iterator[None]:
        """Notice if a group takes long, and begin another one then."""
        takes_long = False

        def notice() -> None:
            nonlocal takes_long
            takes_long = True
            self._taking_long += 1
            self._begin_another(work)

        timer = asyncio.get_running_loop().call_later(self._patience, notice)
        try:
            yield
        finally:
            timer.cancel()
            self._taking_long -= takes_long


async def _worked(
    work: Callable[[Sequence[Job]], Sequence[Result | Exception]], jobs: Sequence[Job]
) -> Sequence[Result | Exception]:
    """Work a group off in a thread; if it fails as a whole, each of its jobs does."""
    try:
        return await anyio.to_thread.run_sync(work, jobs)
    except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next group goes on
        return [error] * len(jobs)


class Gatherers(Generic[Key, Job, Result]):
    """A gatherer for each kind of job: only what is of one kind is worked on together. For one event loop.

    Args:
        at_once: See `Gatherer`; of each kind.
        most: See `Gatherer`.
    """

    def __init__(self, at_once: int = AT_ONCE, most: int = MOST) -> None:
        self._at_once = at_once
        self._most = most
        self._in_use: dict[Key, tuple[Gatherer[Job, Result], int]] = {}

    def __len__(self) -> int:
        """Count the kinds of which somebody waits for a job."""
        return len(self._in_use)

    async def do(self, key: Key, work: Callable[[Sequence[Job]], Sequence[Result | Exception]], job: Job) -> Result:
        """Have a job done; see `Gatherer.do`.

        Args:
            key: The kind of the job.
        """
        gatherer, waiting = self._in_use.get(key) or (Gatherer(self._at_once, self._most), 0)
        self._in_use[key] = gatherer, waiting + 1
        try:
            return await gatherer.do(work, job)
        finally:
            gatherer, waiting = self._in_use[key]
            if waiting > 1:
                self._in_use[key] = gatherer, waiting - 1
            else:
                del self._in_use[key]


def together_or_alone(
    work: Callable[[Sequence[Job]], Sequence[Result]], jobs: Sequence[Job]
) -> Sequence[Result | Exception]:
    """Do jobs together; if that fails, each alone: then it is seen whose fault it was.

    Args:
        work: Gives a result for each job, or fails and leaves nothing behind.

    Raises:
        StoreUnavailable: An answer was lost on its way, so nothing is known of any of them.
    """
    if len(jobs) > 1:
        try:
            return work(jobs)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - it is seen below whose it was
            log.info("group_parted", count=len(jobs), error=type(error).__name__)
    return [_alone(work, job) for job in jobs]


def _alone(work: Callable[[Sequence[Job]], Sequence[Result]], job: Job) -> Result | Exception:
    try:
        return work([job])[0]
    except Exception as error:  # noqa: BLE001 - of this job alone
        return error
