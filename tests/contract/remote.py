"""An installation that runs already and is not ours: what `make contract URL=...` tests.

Nothing of it is emptied, and whatever is in it stays. So every test has tenants, slugs and credentials of its own:
their names get an ending on the way out, which is taken off on the way in. A test does not see it, and writes `acme`
every time.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from tests.contract.client import CALL, TENANT

URL_VARIABLE, KEY_VARIABLE = "CONTRACT_URL", "CONTRACT_KEY"
OWN_SERVER = frozenset(
    {"database_url", "emptied_database", "engine", "migrated_template", "monkeypatch", "reception", "servers"}
    | {"settings", "store"}
)
"""Fixtures of a server that the tests start themselves, and look into."""
_MEMBER = re.compile(rb'("(?:tenant_id|slug)"\s*:\s*"(?!\s*")(?:[^"\\]|\\.)+)"')
_PARAMETER = re.compile(rb"((?:^|&)tenant_id=[^&]+)")
_IN_PATH = re.compile(
    rb"^((?:/api/v1)?/(?:triggers|webhooks(?!/outbox|/deliveries)|credentials|tenants"
    rb"|sessions/by-key|queues/dispatch|workers/version-pins)/[^/?]+)"
)
_CREDENTIALS = re.compile(rb"^(?:/api/v1)?/credentials$")
_CREDENTIAL = re.compile(rb'("id"\s*:\s*"[\w.-]{1,200})"')
_REFERENCE = re.compile(rb"(credentials://[\w.-]+)")


def _new_ending() -> bytes:
    return f"-{uuid4().hex[:8]}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where it is.

    Args:
        url: Without `/api/v1`.
        key: The root key; empty if it asks for none.
        ending: Of the names of this test.
    """

    url: str
    key: str = ""
    ending: bytes = field(default_factory=_new_ending)

    @classmethod
    def named(cls) -> "Remote | None":
        """Give the one that the environment names, with an ending of this test's own; None if it names none."""
        url = os.environ.get(URL_VARIABLE, "").strip().rstrip("/")
        return cls(url=url, key=os.environ.get(KEY_VARIABLE, "")) if url else None

    def client(self, path: str = "", *, root: str | None = None, headers: dict[str, str] | None = None) -> httpx.Client:
        """Give a client.

        Args:
            path: That its addresses begin with.
            root: What the test calls the root key.
            headers: Of all its requests.
        """
        return httpx.Client(
            base_url=self.url + path,
            headers=headers,
            transport=_Renaming(self, root),
            **{name: value for name, value in CALL.items() if name != "verify"},
        )

    def administrator(self) -> httpx.Client:
        """Give a client that may do everything, for the tenant of the tests."""
        headers = {"X-Tenant-Id": TENANT, **({"x-api-key": self.key} if self.key else {})}
        return self.client("/api/v1", headers=headers)


class _Renaming(httpx.BaseTransport):
    def __init__(self, remote: Remote, root: str | None) -> None:
        self._wire = httpx.HTTPTransport(verify=False)
        self._remote = remote
        self._root = root

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._wire.handle_request(self._outgoing(request))
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return httpx.Response(
                answer.status_code, headers=answer.headers, stream=_Stream(answer, self._remote.ending)
            )
        content = answer.read()
        answer.close()
        headers = [
            (name, value) for name, value in answer.headers.raw if name.lower() != b"content-length" or not content
        ]
        clean = content.replace(self._remote.ending, b"")
        return httpx.Response(answer.status_code, headers=self._incoming(headers), content=clean or None)

    def _incoming(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [(name, value.replace(self._remote.ending, b"")) for name, value in headers]

    def _outgoing(self, request: httpx.Request) -> httpx.Request:
        ending = self._remote.ending
        headers = request.headers.copy()
        if headers.get("x-tenant-id", "").strip():
            headers["x-tenant-id"] += ending.decode()
        for name in ("x-api-key", "authorization"):
            if self._root and self._root in headers.get(name, ""):
                headers[name] = headers[name].replace(self._root, self._remote.key)
        path, mark, query = request.url.raw_path.partition(b"?")
        is_credential = _CREDENTIALS.match(path) is not None
        path = _IN_PATH.sub(rb"\1" + ending, path)
        url = request.url.copy_with(raw_path=path + mark + _PARAMETER.sub(rb"\1" + ending, query))
        if not isinstance(request.stream, httpx.ByteStream):
            return httpx.Request(
                request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
            )
        content = _MEMBER.sub(rb"\1" + ending + b'"', request.read())
        content = _REFERENCE.sub(rb"\1" + ending, content)
        if is_credential:
            content = _CREDENTIAL.sub(rb"\1" + ending + b'"', content)
        if "content-length" in headers:
            headers["content-length"] = str(len(content))
        return httpx.Request(request.method, url, headers=headers, content=content, extensions=request.extensions)

    def close(self) -> None:
        self._wire.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, answer: httpx.Response, ending: bytes) -> None:
        self._answer = answer
        self._ending = ending

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._answer.iter_raw():
            yield chunk.replace(self._ending, b"")

    def close(self) -> None:
        self._answer.close()
