"""Follows instances for any number of streams: one question to the store at a time, for all that are followed.

A stream that asked the store by itself would cost a query for each client and interval. Here one task asks which of the
followed instances have changed, reads their new output rows once, and wakes whoever follows them. The newest rows stay
in memory, a few for each instance. A stream that is new, or whose client is slower than its flow, reads what it lacks
from the store itself, page by page, at the pace of its client: so nothing ever waits in memory for a client.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from uuid import UUID

import anyio.to_thread
import psycopg2
import structlog

from orchestrator.api.event_stream import event
from orchestrator.core.states import InstanceState
from orchestrator.errors import StoreUnavailable
from orchestrator.store import following
from orchestrator.store.following import Cursor, Head, Row
from orchestrator.store.session import Store, Transaction

log = structlog.get_logger()

T = TypeVar("T")

GRID_SECONDS: Final = 0.1
"""What is due within so long is asked for together: at most ten questions a second, whoever follows what."""
PAUSE_SECONDS: Final = 1.0
"""Until the next question to a store that has not answered."""
READERS: Final = 2
STREAM_THREADS: Final = READERS + 1
"""Threads, and connections, that streams use: for those who read pages, and for the one who asks."""
MAX_KEPT_BYTES: Final = 128 * 1024
MAX_KEPT_ROWS: Final = 200


@dataclass(slots=True, eq=False)
class Followed:
    """An instance that somebody follows.

    Args:
        head: Where it stood at the last look; None if it is gone.
        covers: Rows of later versions than this are all in `rows`.
        rows: The newest output rows, each as the event that shows it.
        news: Set, and replaced, when something has changed.
        intervals: In which the streams want to be told, in seconds.
    """

    head: Head | None
    covers: int
    due_at: float
    rows: deque[tuple[Row, bytes]] = field(default_factory=deque)
    kept_bytes: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    intervals: Counter[float] = field(default_factory=Counter)

    def tell(self, head: Head | None, rows: list[Row] | None) -> None:
        """Take over what a look has found; `rows` is None if there were too many."""
        if head is None or rows is None:
            self.rows.clear()
            self.kept_bytes, self.covers = 0, head.version if head is not None else self.covers
        else:
            for row in rows:
                self._keep(row)
        self.head = head
        self.wake()

    def _keep(self, row: Row) -> None:
        cursor = str(Cursor(version=row.version, row=row.id))
        shown = b"" if row.view is None else event("output", row.view, cursor=cursor)
        self.rows.append((row, shown))
        self.kept_bytes += len(shown)
        while self.rows and (self.kept_bytes > MAX_KEPT_BYTES or len(self.rows) > MAX_KEPT_ROWS):
            gone, written = self.rows.popleft()
            self.kept_bytes -= len(written)
            self.covers = gone.version

    def wake(self) -> None:
        """Wake all who wait for news."""
        self.news.set()
        self.news = asyncio.Event()

    @property
    def interval(self) -> float:
        """The shortest interval that a stream has asked for, in seconds."""
        return min(self.intervals, default=PAUSE_SECONDS)


class Follower:
    """Asks the store what has become of the instances that are followed, for one process; all in its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: dict[UUID, Followed] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asker = anyio.CapacityLimiter(1)
        self._readers = anyio.CapacityLimiter(READERS)
        self.is_ending = False

    def end(self) -> None:
        """Let all streams end: the process is about to."""
        self.is_ending = True
        for followed in self._followed.values():
            followed.wake()

    async def read(self, question: Callable[[Transaction], T], tenant: str | None = None) -> T:
        """Ask the store something in a thread of the streams, for one tenant or for all."""
        return await anyio.to_thread.run_sync(self._answer, question, tenant, limiter=self._readers)

    def _answer(self, question: Callable[[Transaction], T], tenant: str | None = None) -> T:
        with self._store.reading(tenant) as tx:
            return question(tx)

    @contextmanager
    def following(self, head: Head, interval: float) -> Iterator[Followed]:
        """Follow an instance that stands at `head`, or beyond."""
        now = asyncio.get_running_loop().time()
        followed = self._followed.get(head.id)
        if followed is None:
            followed = Followed(head=head, covers=head.version, due_at=now + interval)
            self._followed[head.id] = followed
        followed.intervals[interval] += 1
        followed.due_at = min(followed.due_at, now + interval)
        self._wanted.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())
        try:
            yield followed
        finally:
            followed.intervals[interval] -= 1
            followed.intervals += Counter()
            if not followed.intervals:
                self._followed.pop(head.id, None)

    async def _follow(self) -> None:
        """Ask, as long as anybody follows anything."""
        clock = asyncio.get_running_loop().time
        while self._followed and not self.is_ending:
            self._wanted.clear()
            pause = min(each.due_at for each in self._followed.values()) - clock()
            if pause > 0:
                try:
                    await asyncio.wait_for(self._wanted.wait(), pause)
                    continue
                except TimeoutError:
                    pass
            due = {i: each for i, each in self._followed.items() if each.due_at <= clock() + GRID_SECONDS}
            try:
                await self._look(due)
            except (StoreUnavailable, psycopg2.Error) as error:
                log.warning("streams_wait", error=type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("streams_failed")
                await asyncio.sleep(PAUSE_SECONDS)
            for each in due.values():
                each.due_at = clock() + max(each.interval, GRID_SECONDS)

    async def _look(self, due: dict[UUID, Followed]) -> None:
        known = {i: each.head for i, each in due.items() if each.head is not None}
        if not known:
            return
        found = await anyio.to_thread.run_sync(self._answer, lambda tx: _look(tx, known), limiter=self._asker)
        for instance_id, (head, rows) in found.items():
            due[instance_id].tell(head, rows)


def _look(tx: Transaction, known: dict[UUID, Head]) -> dict[UUID, tuple[Head | None, list[Row] | None]]:
    heads = following.look(tx, {i: head.version for i, head in known.items()})
    changed = [known[i] for i, head in heads.items() if head is not None]
    rows: dict[UUID, Any] = following.later_rows(tx, changed, max_bytes=MAX_KEPT_BYTES) if changed else {}
    return {i: (head, _until(head, rows.get(i, []))) for i, head in heads.items()}


def _until(head: Head | None, rows: list[Row] | None) -> list[Row] | None:
    """Leave out rows of commits after the look at the instance: the next look finds them again."""
    if head is None or rows is None:
        return None
    return [row for row in rows if row.version <= head.version]


async def events_of(
    follower: Follower, tenant: str | None, followed: Followed, cursor: Cursor
) -> AsyncGenerator[bytes, None]:
    """Give the events of one instance's stream (contract, api §12): states, output rows, and how it ends.

    Args:
        tenant: Whose stream it is; None for a caller that sees all.
        cursor: What the client has seen.
    """
    shown = None
    while not follower.is_ending:
        news, head = followed.news, followed.head
        if head is None:
            yield event("error", {"error": "instance not found"})
            return
        if head.state != shown:
            shown = head.state
            yield event("state", {"instance_id": head.id, "state": shown})
        if not cursor.has_all(followed.covers):
            cursor, written = await _page(follower, tenant, head, cursor.begin(head.version))
        else:
            cursor, written = _kept(followed, cursor)
        for each in written:
            yield each
        if followed.head is not head or not cursor.has_all(head.version):
            continue
        if InstanceState(head.state).is_terminal:
            yield event("done", {"state": head.state})
            return
        await news.wait()


def _kept(followed: Followed, cursor: Cursor) -> tuple[Cursor, list[bytes]]:
    """Give the rows in memory that somebody has not seen, and what he has seen after them."""
    unseen = [(row, written) for row, written in followed.rows if (row.version, row.id) > (cursor.version, cursor.row)]
    newest = unseen[-1][0].id if unseen else cursor.newest
    seen = max(cursor.version, followed.head.version if followed.head is not None else -1)
    return cursor.end(seen, newest), [written for _, written in unseen if written]


async def _page(follower: Follower, tenant: str | None, head: Head, cursor: Cursor) -> tuple[Cursor, list[bytes]]:
    """Give the next rows that somebody has not seen, from the store, and what he has seen after them."""
    try:
        rows, has_more = await follower.read(lambda tx: following.page(tx, head.id, cursor), tenant)
    except (StoreUnavailable, psycopg2.Error) as error:
        log.warning("streams_wait", error=type(error).__name__)
        await asyncio.sleep(PAUSE_SECONDS)
        return cursor, []
    written = []
    for row in rows:
        cursor = replace(cursor, at=row.id)
        if row.view is not None:
            written.append(event("output", row.view, cursor=str(cursor)))
    return cursor if has_more else cursor.end(cursor.until or 0, cursor.at), written
