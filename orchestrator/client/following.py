"""Following an instance: its stream read line by line, and opened again behind the last event when it breaks off.

Source of the format: WHATWG HTML, "Server-sent events".
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from orchestrator.client import calls
from orchestrator.client.calls import Id
from orchestrator.client.transport import CONNECT_SECONDS, PREFIX, Call, Patience, Tries, result_of
from orchestrator.errors import ServerFault

SILENCE_SECONDS: Final = 45.0
"""Three of the server's comments are missing: the connection is dead."""
_LAST: Final = frozenset({"done", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        name: `state`, `output`, `llm_delta`, `error` or `done`.
        cursor: By which a stream goes on behind it; None for events without one.
    """

    name: str
    data: Any
    cursor: str | None = None


class Reading:
    """One stream over any number of connections: what has been seen, and when to connect again. No I/O."""

    def __init__(self, instance_id: Id, *, poll_ms: int, after: str | None, patience: Patience, url: str) -> None:
        path = f"{calls.instance(instance_id).path}/stream"
        self._call: Call[None] = Call(
            method="GET", path=path, query={"poll_ms": poll_ms}, read=lambda _status, _body: None, may_repeat=True
        )
        self._patience, self._url = patience, url
        self._cursor = after
        self._state: Any = None
        self._fields: dict[str, str] = {}
        self._tries = Tries(self._call, patience, url)
        self.is_over = False

    def request(self) -> dict[str, Any]:
        """Give the arguments of `httpx.Client.stream` for the next connection."""
        self._fields = {}
        headers = {} if self._cursor is None else {"last-event-id": self._cursor}
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        return {
            "method": "GET",
            "url": PREFIX + self._call.path,
            "params": dict(self._call.query),
            "headers": headers,
            "timeout": timeout,
        }

    def take(self, line: str) -> StreamEvent | None:
        """Take a line; gives the event that it ends, if there is one that was not seen before."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "event" not in fields:
            return None
        try:
            event = StreamEvent(name=fields["event"], data=orjson.loads(fields["data"]), cursor=fields.get("id"))
        except (KeyError, orjson.JSONDecodeError) as error:
            raise ServerFault(f"{self._url} has sent an event that cannot be read") from error
        self._tries = Tries(self._call, self._patience, self._url)
        self._cursor = event.cursor or self._cursor
        self.is_over = event.name in _LAST
        if event.name == "state" and event.data == self._state:
            return None
        self._state = event.data if event.name == "state" else self._state
        return event

    def refused(self, response: httpx.Response) -> float:
        """Say how long to wait after an answer that is no stream; raises what it means if that is final."""
        pause = self._tries.after_answer(response)
        if pause is None:
            result_of(self._call, response)
            raise ServerFault(f"{self._url} has answered {response.status_code} without a stream")
        return pause

    def broken(self, error: httpx.HTTPError) -> float:
        """Say how long to wait after a connection that was lost, or not made; ServerUnavailable after many."""
        return self._tries.after_error(error)

    def cut(self) -> float:
        """Say how long to wait after a stream that the server has ended: it is about to stop."""
        return self._patience.delay(1)


class FollowingMethods:
    """Follows instances."""

    _http: httpx.Client
    _patience: Patience
    url: str

    def follow(self, instance_id: Id, *, poll_ms: int = 500, after: str | None = None) -> Iterator[StreamEvent]:
        """Give what happens to an instance, from its first output row on, until it has ended.

        A connection that breaks is opened again, without a gap and without a row twice.

        Args:
            poll_ms: How long a change may go unseen, in milliseconds; from 100 to 5000.
            after: The `cursor` of the last event that was seen, by an earlier call.

        Raises:
            NotFound: There is no such instance.
            ServerUnavailable: The server cannot be reached after several tries.
        """
        reading = Reading(instance_id, poll_ms=poll_ms, after=after, patience=self._patience, url=self.url)
        while not reading.is_over:
            try:
                with self._http.stream(**reading.request()) as response:
                    if response.is_success:
                        for line in response.iter_lines():
                            event = reading.take(line)
                            if event is not None:
                                yield event
                        pause = reading.cut()
                    else:
                        response.read()
                        pause = reading.refused(response)
            except httpx.TransportError as error:
                pause = reading.broken(error)
            if not reading.is_over:
                time.sleep(pause)


class AsyncFollowingMethods:
    """Follows instances."""

    _http: httpx.AsyncClient
    _patience: Patience
    url: str

    async def follow(
        self, instance_id: Id, *, poll_ms: int = 500, after: str | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Give what happens to an instance, from its first output row on, until it has ended.

        A connection that breaks is opened again, without a gap and without a row twice.

        Args:
            poll_ms: How long a change may go unseen, in milliseconds; from 100 to 5000.
            after: The `cursor` of the last event that was seen, by an earlier call.

        Raises:
            NotFound: There is no such instance.
            ServerUnavailable: The server cannot be reached after several tries.
        """
        reading = Reading(instance_id, poll_ms=poll_ms, after=after, patience=self._patience, url=self.url)
        while not reading.is_over:
            try:
                async with self._http.stream(**reading.request()) as response:
                    if response.is_success:
                        async for line in response.aiter_lines():
                            event = reading.take(line)
                            if event is not None:
                                yield event
                        pause = reading.cut()
                    else:
                        await response.aread()
                        pause = reading.refused(response)
            except httpx.TransportError as error:
                pause = reading.broken(error)
            if not reading.is_over:
                await asyncio.sleep(pause)
