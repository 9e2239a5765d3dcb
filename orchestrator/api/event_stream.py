"""Answers that go on: Server-Sent Events, to a client that may be slow or leave at any moment.

Source of the format: WHATWG HTML, "Server-sent events".
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, suppress
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sequences.json_values import json_bytes

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent, for proxies that close silent connections (contract, api §12)."""
SEND_SECONDS = 30.0
"""A client that has taken nothing for so long is left."""
_COMMENT: Final = b":\n\n"
_LINE_ENDS_OF_READERS: Final = (("\x85", rb"\u0085"), ("\u2028", rb"\u2028"), ("\u2029", rb"\u2029"))
"""Line ends of Unicode that JSON may hold as they are, and its escapes of them. Python's readers end lines there."""


def event(name: str, data: Any, *, cursor: str | None = None) -> bytes:
    """Write one event; `cursor` is what a client that comes back names as `Last-Event-ID`."""
    line = b"" if cursor is None else b"id: " + cursor.encode() + b"\n"
    written = json_bytes(data, options=orjson.OPT_UTC_Z)
    for character, escaped in _LINE_ENDS_OF_READERS:
        written = written.replace(character.encode(), escaped)
    return b"event: " + name.encode() + b"\n" + line + b"data: " + written + b"\n\n"


class EventStream(Response):
    """Sends events until there are no more, the client has left, or it takes nothing any longer.

    Args:
        events: Written by `event`. The next one is asked for when the one before has gone out, so a slow client holds
            two of them in memory and no more.
        held: Closed when the stream has ended, however it did.
    """

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes, None], held: ExitStack) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        self._events = events
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        with self._held:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                if not scope.get("is_head", False):
                    await self._send_events(receive, send)
                await send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                # Nothing more can be sent; returning closes the connection.
                return
            finally:
                await self._events.aclose()

    async def _send_events(self, receive: Receive, send: Send) -> None:
        left = asyncio.ensure_future(_left(receive))
        following = asyncio.ensure_future(_next(self._events))
        try:
            while not left.done():
                await asyncio.wait({left, following}, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                chunk: bytes | None = _COMMENT
                if following.done():
                    chunk = following.result()
                    if chunk is None:
                        return
                    following = asyncio.ensure_future(_next(self._events))
                if not left.done():
                    message = {"type": "http.response.body", "body": chunk, "more_body": True}
                    await asyncio.wait_for(send(message), SEND_SECONDS)
        finally:
            for each in (left, following):
                each.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await each


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(events, None)
