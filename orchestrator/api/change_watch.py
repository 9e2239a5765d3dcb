"""Watches how far the change feeds of tenants go, for any number of streams: one question for all of them."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import psycopg2
import structlog

from orchestrator.api.event_stream import event
from orchestrator.api.following import PAUSE_SECONDS, Follower
from orchestrator.api.views import audit_view
from orchestrator.errors import StoreUnavailable
from orchestrator.store import change_feed
from orchestrator.store.change_feed import Place

log = structlog.get_logger()

POLL_SECONDS: Final = 0.5
PAGE: Final = 100


@dataclass(slots=True, eq=False)
class Feed:
    """The feed of one tenant, and how many streams show it."""

    newest: tuple[int, UUID] | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0


class ChangeWatch:
    """Watches feeds for one process, all in its event loop.

    Args:
        follower: Asks the store, and knows when the process is about to end.
    """

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self._feeds: dict[str, Feed] = {}
        self._task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Let all streams end: the process is about to."""
        for feed in self._feeds.values():
            feed.news.set()

    @contextmanager
    def watching(self, tenant_id: str) -> Iterator[Feed]:
        """Watch the feed of a tenant."""
        feed = self._feeds.setdefault(tenant_id, Feed())
        feed.streams += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            yield feed
        finally:
            feed.streams -= 1
            if not feed.streams:
                self._feeds.pop(tenant_id, None)

    async def _watch(self) -> None:
        while self._feeds and not self.follower.is_ending:
            try:
                tenants = list(self._feeds)
                found = await self.follower.read(lambda tx: change_feed.newest(tx, tenants))  # noqa: B023 - at once
                self._tell(found)
            except (StoreUnavailable, psycopg2.Error) as error:
                log.warning("streams_wait", error=type(error).__name__)
            except Exception:
                log.exception("streams_failed")
            await asyncio.sleep(POLL_SECONDS)

    def _tell(self, found: dict[str, tuple[int, UUID]]) -> None:
        for tenant_id, newest in found.items():
            feed = self._feeds.get(tenant_id)
            if feed is not None and feed.newest != newest:
                feed.newest = newest
                feed.news.set()
                feed.news = asyncio.Event()


async def changes_of(
    watch: ChangeWatch, feed: Feed, tenant_id: str, place: Place | None
) -> AsyncGenerator[bytes, None]:
    """Give the events of a stream of changes: one for each audit row, without end."""
    while not watch.follower.is_ending:
        news = feed.news
        try:
            seen = place
            rows = await watch.follower.read(lambda tx: change_feed.after(tx, tenant_id, seen, PAGE), tenant_id)  # noqa: B023 - at once
        except (StoreUnavailable, psycopg2.Error) as error:
            log.warning("streams_wait", error=type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        for row in rows:
            place = row.place
            yield event("change", audit_view(row.instance_id, tuple(row.shown)), cursor=str(place))
        if len(rows) < PAGE:
            await news.wait()
