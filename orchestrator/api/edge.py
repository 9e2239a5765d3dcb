"""What happens to every request before it is routed and to every answer before it leaves (contract, api §1-3).

`Edge` is outermost: request ids, the last catch of errors, the number of requests at once. `Door` is inside of it:
keys, tenants, and the two addresses of each endpoint.
"""

import asyncio
import re
import traceback
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import anyio.to_thread
import psycopg2
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.auth import Caller, Refused, identify
from orchestrator.api.capabilities import PUBLIC_PATHS, is_public, is_webhook
from orchestrator.api.event_stream import MEDIA_TYPE
from orchestrator.api.methods import Methods
from orchestrator.api.segments import path_of
from orchestrator.api.services import Services
from orchestrator.errors import StoreUnavailable
from orchestrator.settings import Settings
from orchestrator.store.api_keys import KeyInForce

log = structlog.get_logger()

PREFIX = "/api/v1"
ROOT_ONLY = frozenset({*PUBLIC_PATHS, "/metrics", "/swagger-ui", "/api-docs/openapi.json"})
"""Answered at the root and nowhere else."""
STREAM = MEDIA_TYPE.encode()
INTERNAL_ERROR = b'{"error":"internal server error"}'
UNAVAILABLE = b'{"error":"unavailable: the store did not answer, try again"}'

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]")
_MAX_ID = 128
_CHANCE = Random()  # noqa: S311 - ids of requests are no secrets, and asking the kernel for each lets other threads in


class Edge:
    """Puts `x-request-id` on every answer and turns whatever went wrong into a 500 that says nothing."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._slots = asyncio.Semaphore(settings.max_concurrent_requests) if settings.max_concurrent_requests else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._slots is None:
            await self._serve(scope, receive, send, _Slot())
        else:
            await self._slots.acquire()
            slot = _Slot(self._slots)
            try:
                await self._serve(scope, receive, send, slot)
            finally:
                slot.give_back()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, slot: "_Slot") -> None:
        request_id = _request_id(scope)
        has_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                if (b"content-type", STREAM) in message["headers"]:
                    slot.give_back()
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # in the middle of its own body: nobody is left to be answered, and nothing went wrong here
        except Exception:
            # The text of the traceback, not the exception itself: pretty printers would show settings and bodies.
            trace = traceback.format_exc()
            fields = {"request_id": request_id, "method": scope["method"], "path": scope["path"], "trace": trace}
            log.error("request_failed", **fields)  # noqa: TRY400
            if has_started:
                raise
            await _answer(send_with_id, 500, INTERNAL_ERROR, b"application/json")


class _Slot:
    """The right of one request to be worked on. A stream gives it back early: it waits most of the time."""

    def __init__(self, slots: asyncio.Semaphore | None = None) -> None:
        self._slots = slots

    def give_back(self) -> None:
        """Let another request be worked on; once."""
        if self._slots is not None:
            self._slots.release()
            self._slots = None


class Door:
    """Identifies the caller and leads both addresses of an endpoint to one route."""

    def __init__(self, app: ASGIApp, settings: Settings, methods: Methods) -> None:
        self._app = app
        self._settings = settings
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        holds_nul = "\0" in scope["path"] or b"%00" in scope["query_string"]
        path = path_of(scope)
        is_legacy = not (path in ROOT_ONLY or is_webhook(path) or path.startswith(f"{PREFIX}/"))
        if is_legacy:
            send = _with_notice(scope, send)  # refusals carry it too
        if not is_public(scope["method"], path):
            services: Services = scope["app"].state.services
            try:
                caller = await identify(
                    _headers(scope), scope["method"], _bare(path), self._settings, partial(_find_key, services)
                )
                await _count(services, caller)
            except Refused as refused:
                await _answer(send, refused.status, refused.body, b"application/json" if refused.body else None)
                return
            scope = {**scope, "caller": caller}
        if holds_nul:
            await _answer(send, 400, b"NUL in the address", b"text/plain; charset=utf-8")
            return
        if path != scope["path"]:
            scope = {**scope, "path": path}
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "is_head": True}
        if is_legacy:
            scope = {**scope, "path": PREFIX + path, "raw_path": None}
        if self._methods.refused(scope["method"], scope["path"]):
            await Response(status_code=405, headers={"allow": self._methods.allowed(scope["path"])})(
                scope, receive, send
            )
        else:
            await self._app(scope, receive, send)


async def _count(services: Services, caller: Caller) -> None:
    """Refuse a tenant key that asks too often. The root key is not counted: it must get in to revoke such a key."""
    throttle, key_id = services.key_throttle, caller.key_id
    if throttle is None or key_id is None or caller.is_admin or await throttle.admit(key_id):
        return
    raise Refused(429, f'{{"error":"rate limit exceeded: key {key_id}"}}'.encode())


def _bare(path: str) -> str:
    return path.removeprefix(PREFIX) if path.startswith(f"{PREFIX}/") else path


async def _find_key(services: Services, secret: str) -> KeyInForce | None:
    try:
        return await anyio.to_thread.run_sync(services.keyring.find, secret)
    except (StoreUnavailable, psycopg2.Error) as error:
        raise Refused(503, UNAVAILABLE) from error


def _request_id(scope: Scope) -> str:
    written = _text(dict(scope["headers"]).get(b"x-request-id", b""))
    return _NOT_IN_IDS.sub("", written)[:_MAX_ID] or str(UUID(int=_CHANCE.getrandbits(128), version=4))


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): _text(value) for name, value in scope["headers"]}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _with_notice(scope: Scope, send: Send) -> Send:
    """Tell clients of a bare address where the endpoint lives now."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    address = PREFIX.encode() + scope.get("raw_path", scope["path"].encode()).partition(b"?")[0] + query
    notice: list[Any] = [
        (b"deprecation", b"@1767225600"),
        (b"sunset", b"Sat, 01 Jan 2028 00:00:00 GMT"),
        (b"link", b"<" + address + b'>; rel="successor-version"'),
    ]

    async def send_with_notice(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *notice]}
        await send(message)

    return send_with_notice


async def _answer(send: Send, status: int, body: bytes = b"", content_type: bytes | None = None) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if content_type is not None:
        headers.append((b"content-type", content_type))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
