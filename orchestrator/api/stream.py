"""The event stream of one instance (contract, api §12)."""

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import error
from orchestrator.api.auth import CallerDependency
from orchestrator.api.event_stream import EventStream
from orchestrator.api.following import events_of
from orchestrator.api.services import Serving
from orchestrator.api.streams import TooManyStreams
from orchestrator.errors import NotFound
from orchestrator.store import following
from orchestrator.store.following import Cursor

router = APIRouter(tags=["instances"])
MIN_POLL_MS, MAX_POLL_MS = 100, 5000

LastEventId = Annotated[str | None, Header(alias="last-event-id")]


@router.get("/instances/{id}/stream", status_code=200, response_class=EventStream)
async def stream_instance(
    serving: Serving,
    caller: CallerDependency,
    instance_id: InstanceId,
    poll_ms: int = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """Send what happens to an instance: `state`, `output` for each row, and `done` or `error` at its end.

    `output` events have an `id` (an extension of the wire format): a client that names the last one it has seen as
    `Last-Event-ID` gets what comes after it, without a gap. An unknown one is ignored.
    """
    streams = serving.streams
    interval = min(max(poll_ms, MIN_POLL_MS), MAX_POLL_MS) / 1000
    with ExitStack() as held:
        try:
            held.enter_context(streams.opened())
        except TooManyStreams:
            return error(503, "unavailable: all streams of this server are in use")
        head = await streams.follower.read(lambda tx: following.head(tx, instance_id, caller.tenant), caller.tenant)
        if head is None:
            raise NotFound(f"instance {instance_id}")
        followed = held.enter_context(streams.follower.following(head, interval))
        return EventStream(events_of(streams.follower, caller.tenant, followed, _seen(last_event_id)), held.pop_all())


def _seen(last_event_id: str | None) -> Cursor:
    try:
        return Cursor.read(last_event_id) if last_event_id else Cursor()
    except ValueError:
        return Cursor()
