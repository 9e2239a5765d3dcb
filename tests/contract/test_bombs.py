"""Bodies made to be expensive: compressed, deep, huge, slow, endless (RELIABILITY E51, T17)."""

import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st

from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.contract.client import TENANT, Api, step
from tests.contract.signing import signed
from tests.support.serving import Reception

MEGABYTE = 1024 * 1024
SECONDS = 60.0
"""In which everything here is answered, on a machine that does other things, too."""
PATHS = ("/sequences", "/instances", "/instances/batch", "/workers/tasks/poll", "/triggers/none/fire")


# -- compressed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("gzip", gzip.compress(b'{"x": "' + b"0" * (64 * MEGABYTE) + b'"}')),
        ("gzip, gzip", gzip.compress(gzip.compress(b"0" * (64 * MEGABYTE)))),
        ("deflate", zlib.compress(b"[" * (64 * MEGABYTE))),
        ("br", b"\x8b\x00\x80\x03"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\x00"),
    ],
    ids=["gzip", "gzip twice", "deflate", "br", "zstd"],
)
def test_compressed_bodies_are_not_unpacked(api: Api, coding: str, content: bytes) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    with growing_by(8 * MEGABYTE):
        for path in PATHS:
            assert api.http.post(path, content=content, headers=headers).status_code in {400, 404}
        delivered = api.deliver("none", content, {**signed(content), **headers})
        assert delivered.status_code == 404


@contextmanager
def growing_by(most: int) -> Iterator[None]:
    """Check that this process, in which the server runs, never holds so many bytes more than it does now."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


# -- deep and huge ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"[" * MEGABYTE,
        b'{"a":' * 200_000,
        b'{"output": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"output": ' + b"9" * (4 * MEGABYTE) + b"}",
        b'{"output": 0.' + b"9" * (4 * MEGABYTE) + b"}",
        b'{"output": 1e' + b"9" * MEGABYTE + b"}",
        b'{"output": -1E-' + b"9" * MEGABYTE + b', "limit": 1e400}',
        b'{"limit": 1' + b"0" * 400 + b"}",
        b'{"' + b"a" * MEGABYTE + b'": 1, "limit": true}',
        b'{"limit": "' + b"\\u0000" * 100_000 + b'"}',
        b'{"blocks": [' + b"{}," * 50_000 + b"{}]}",
        b"{" + b",".join(b'"k%d":1' % n for n in range(200_000)) + b"}",
    ],
    ids=range(12),
)
def test_deep_and_huge_bodies_are_refused_soon(api: Api, content: bytes) -> None:
    began = time.process_time()
    for path in PATHS[:-1]:
        answer = api.http.post(path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 413, 422}, (path, answer.text[:200])
        assert len(answer.content) < 4096
    assert time.process_time() - began < SECONDS


# -- endless and slow ------------------------------------------------------------------------------------------------


def test_body_without_an_end_is_cut_off(api: Api) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with growing_by(32 * MEGABYTE), connected(api.http) as wire:
        begin(wire, "/api/v1/instances", "Transfer-Encoding: chunked")
        sent = 0
        with suppress(OSError):
            while sent < 512 * MEGABYTE:
                wire.sendall(chunk)
                sent += len(chunk)
        assert sent < 512 * MEGABYTE
    assert api.http.get("/instances").status_code == 200


@pytest.fixture
def hasty(reception: Reception, engine: Engine, settings: Settings) -> Iterator[httpx.Client]:
    """A server that waits for bodies for half a second."""
    hurried = settings.model_copy(update={"body_timeout": settings.body_timeout / 120, "max_concurrent_requests": 4})
    url = reception.address(engine, hurried)
    with httpx.Client(base_url=url, headers={"X-Tenant-Id": TENANT}, timeout=SECONDS, verify=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/api/v1/instances", "/api/v1/triggers/none/fire", "/webhooks/none"])
@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_slow_body_is_408_and_holds_no_place_for_ever(hasty: httpx.Client, path: str, length: str) -> None:
    with connected(hasty) as first, connected(hasty) as second, connected(hasty) as third, connected(hasty) as fourth:
        wires = (first, second, third, fourth)
        for wire in wires:
            begin(wire, path, length)
        is_over = threading.Event()
        dripping = threading.Thread(target=drip, args=(wires, "chunked" in length, is_over))
        dripping.start()
        try:
            assert hasty.get("/api/v1/instances").status_code == 200
            for wire in wires:
                assert said(wire).startswith(b"HTTP/1.1 408 ")
        finally:
            is_over.set()
            dripping.join(SECONDS)
    assert hasty.get("/api/v1/instances").status_code == 200


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    """Open a connection to a client's server."""
    address = urlsplit(str(client.base_url))
    with closing(socket.create_connection((address.hostname, address.port), timeout=SECONDS)) as wire:
        yield wire


def begin(wire: socket.socket, path: str, length: str) -> None:
    """Send the head of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: {TENANT}\r\nContent-Type: application/json\r\n{length}\r\n"
    wire.sendall(f"{head}\r\n".encode())


def drip(wires: tuple[socket.socket, ...], is_chunked: bool, is_over: threading.Event) -> None:
    """Send a byte of each body now and then, until it is over."""
    while not is_over.wait(0.02):
        for wire in wires:
            with suppress(OSError):
                wire.sendall(b"1\r\n \r\n" if is_chunked else b" ")


def said(wire: socket.socket) -> bytes:
    """Read the answer to its end, which is that of the connection."""
    answer = b""
    with suppress(ConnectionResetError):
        while part := wire.recv(65536):
            answer += part
    return answer


# -- expressions -----------------------------------------------------------------------------------------------------

WORDS = """
data .n outputs context [0] ['k'] 1 1e308 'x' null true {{ }} | default upper json length ( ) , + - * / % ** == >= && ||
not and in ? : ! { } [ ] . \\ " \u00e9 \U0001f600 __class__ range(9**9)
"""
TOKENS = st.sampled_from([*WORDS.split(), "9" * 40])
TEXTS = st.lists(TOKENS, min_size=1, max_size=24).map(" ".join)


@given(texts=st.lists(TEXTS, min_size=5, max_size=5))
@search(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_expressions_of_any_form_lead_to_an_end(api: Api, texts: list[str]) -> None:
    when, condition, collection, template, route = texts
    blocks = [
        step("a", "noop", when=when, params={"x": "{{ " + template + " }}", "y": template}),
        {"type": "loop", "id": "l", "condition": condition, "max_iterations": 2, "body": [step("b", "noop")]},
        {"type": "for_each", "id": "f", "collection": collection, "max_iterations": 2, "body": [step("c", "noop")]},
        {"type": "router", "id": "r", "routes": [{"condition": route, "blocks": [step("d", "noop")]}], "default": []},
    ]
    for block in blocks:
        document = {"id": "drawn", "blocks": [block]}
        stored = api.http.post("/sequences", json=document)
        assert stored.status_code in {200, 201, 400, 422}, stored.text
        if stored.is_success:
            instance = api.start_of(stored.json()["id"], context={"data": {"n": 1, "k": [1, {"k": None}]}})
            api.run_builtins()
            assert api.state(instance) in {"completed", "failed"}
