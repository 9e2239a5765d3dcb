"""Both clients follow the stream of a flow."""

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator import errors
from orchestrator.client import AsyncClient, Client, StreamEvent
from orchestrator.engine import Engine
from tests.integration.client.hands import QUICK, work_off

pytestmark = pytest.mark.shares_database


def follow(client: Client, engine: Engine, instance_id: UUID, after: str | None = None) -> list[StreamEvent]:
    """Follow an instance to its end; it is worked on once the stream is open."""
    seen = []
    for event in client.follow(instance_id, poll_ms=100, after=after):
        work_off(engine)
        seen.append(event)
    return seen


def test_an_instance_is_followed_to_its_end_and_again_from_any_event(
    client: Client, engine: Engine, greet: UUID
) -> None:
    started = client.start("greet")
    seen = follow(client, engine, started.id)
    rows = [each for each in seen if each.name == "output"]
    assert [each.data["block_id"] for each in rows] == ["noop", "charge"]
    assert seen[-1].data == {"state": "completed"}
    again = follow(client, engine, started.id, rows[0].cursor)
    assert [each.data for each in again if each.name == "output"] == [rows[1].data]
    with pytest.raises(errors.NotFound):
        list(client.follow(uuid4()))


def test_a_stream_that_breaks_off_goes_on_behind_the_last_event() -> None:
    """Every connection but the last one breaks; what is shown again is not told again."""
    state = b'event: state\ndata: {"state":"running"}\n\n'
    asked: list[str | None] = []

    class Cut(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield state + b'event: output\nid: c1\ndata: {"n":1}\n\nevent: output\nid: c2\nda'
            raise httpx.ReadError("cut")

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        match len(asked):
            case 1:
                return httpx.Response(200, stream=Cut())
            case 2:
                return httpx.Response(503, json={"error": "unavailable: all streams are in use"})
            case 3:
                return httpx.Response(200, content=state)
        return httpx.Response(200, content=state + b':\n\nevent: done\ndata: {"state":"completed"}\n\n')

    with Client("http://x", patience=QUICK, transport=httpx.MockTransport(answer)) as client:
        seen = [(each.name, each.cursor) for each in client.follow(uuid4())]
    assert seen == [("state", None), ("output", "c1"), ("done", None)]
    assert asked == [None, "c1", "c1", "c1"]


def test_the_async_client_follows_too(url: str, client: Client, engine: Engine, greet: UUID) -> None:
    started = client.start("greet")
    work_off(engine)

    async def names() -> list[str]:
        async with AsyncClient(url, tenant="shop", patience=QUICK) as opened:
            return [event.name async for event in opened.follow(started.id)]

    assert asyncio.run(names()) == ["state", "output", "output", "done"]
