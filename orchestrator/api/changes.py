"""The change feed of a tenant (contract, api §18.4)."""

from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from orchestrator.api.answers import Json, error
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.change_watch import changes_of
from orchestrator.api.event_stream import EventStream
from orchestrator.api.instance_shapes import AuditRow
from orchestrator.api.services import Serving
from orchestrator.api.stream import LastEventId
from orchestrator.api.streams import TooManyStreams
from orchestrator.api.views import audit_view
from orchestrator.errors import InvalidArgument
from orchestrator.store import change_feed
from orchestrator.store.change_feed import Place

router = APIRouter(tags=["changes"])
MAX_PAGE = 500

CursorQuery = Annotated[str | None, Query(alias="cursor")]


class ChangePage(BaseModel):
    """Part of the feed; `next_cursor` leads behind its last row, and is absent when it has none."""

    changes: list[AuditRow]
    next_cursor: str | None = None
    has_more: bool


@router.get("/changes", responses={200: {"model": ChangePage}})
def list_changes(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    cursor: CursorQuery = None,
    limit: int = 100,
) -> Response:
    """List what has happened to all instances of a tenant, the oldest first; nothing ever appears behind a cursor."""
    tenant, place = _tenant(caller, tenant_id), _place(cursor)
    limit = min(max(limit, 1), MAX_PAGE)
    with serving.store.reading(tenant) as tx:
        rows = change_feed.after(tx, tenant, place, limit + 1)
    shown = rows[:limit]
    page: dict[str, Any] = {"changes": [audit_view(row.instance_id, tuple(row.shown)) for row in shown]}
    if shown:
        page["next_cursor"] = str(shown[-1].place)
    return Json({**page, "has_more": len(rows) > limit})


@router.get("/changes/stream", status_code=200, response_class=EventStream)
async def stream_changes(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    cursor: CursorQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Send the feed as it grows: `change` for each row, with its cursor as the `id`."""
    streams = serving.streams
    tenant, place = _tenant(caller, tenant_id), _place(cursor or last_event_id)
    with ExitStack() as held:
        try:
            held.enter_context(streams.opened())
        except TooManyStreams:
            return error(429, "rate limit exceeded: all streams of this server are in use")
        feed = held.enter_context(streams.changes.watching(tenant))
        return EventStream(changes_of(streams.changes, feed, tenant, place), held.pop_all())


def _tenant(caller: Caller, asked: str | None) -> str:
    tenant = caller.narrowed((asked or "").strip() or None)
    if tenant is None:
        raise InvalidArgument("tenant scope is required")
    return tenant


def _place(written: str | None) -> Place | None:
    if not written:
        return None
    try:
        return Place.read(written)
    except ValueError as refused:
        raise InvalidArgument(str(refused)) from refused
