"""http_request against a server on this machine: what goes out, what comes back, and what never leaves."""

import asyncio
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import orchestrator.egress.addresses
from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.egress import BLOCKED, MAX_BODY_BYTES, Egress
from workers.context import StepContext
from workers.handlers.builtin import builtin_registry

CTX = StepContext(instance_id=uuid4(), sequence="s", block_id="b", handler="http_request", idempotency_key="flow:b")
BOMB = gzip.compress(b"\0" * (MAX_BODY_BYTES + 1))


class Site(BaseHTTPRequestHandler):
    """Answers by path; keeps what it got in `server.seen`."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), body))  # type: ignore[attr-defined]
        name, _, rest = self.path.strip("/").partition("/")
        getattr(self, f"answer_{name}")(rest, body)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_echo(self, rest: str, body: bytes) -> None:
        got = {"method": self.command, "headers": dict(self.headers.items()), "body": body.decode()}
        self.reply(200, json.dumps(got).encode())

    def answer_status(self, rest: str, body: bytes) -> None:
        self.reply(int(rest), b"said " + rest.encode())

    def answer_redirect(self, rest: str, body: bytes) -> None:
        left = int(rest)
        self.reply(302, Location="/echo" if left == 1 else f"/redirect/{left - 1}")

    def answer_to(self, rest: str, body: bytes) -> None:
        status, _, target = rest.partition("/")
        self.reply(int(status), Location=target)

    def answer_gzip(self, rest: str, body: bytes) -> None:
        self.reply(200, gzip.compress(b"first ") + gzip.compress(b"second"), Content_Encoding="gzip")

    def answer_deflate(self, rest: str, body: bytes) -> None:
        packed = zlib.compress(b"wrapped") if rest == "zlib" else zlib.compress(b"raw")[2:-4]
        self.reply(200, packed, Content_Encoding="deflate")

    def answer_encoded(self, rest: str, body: bytes) -> None:
        self.reply(200, b"x", Content_Encoding=rest)

    def answer_broken(self, rest: str, body: bytes) -> None:
        packed = gzip.compress(b"x" * 1000)
        self.reply(200, packed[:-12] if rest == "short" else b"no gzip at all", Content_Encoding="gzip")

    def answer_bomb(self, rest: str, body: bytes) -> None:
        self.reply(200, BOMB, Content_Encoding="gzip")

    def answer_size(self, rest: str, body: bytes) -> None:
        self.reply(200, b"x" * int(rest))

    def answer_endless(self, rest: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.close_connection = True

    def answer_drip(self, rest: str, body: bytes) -> None:
        """Send a byte now and then, which no read timeout notices."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            while not self.server.stopping.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        except OSError:
            self.close_connection = True

    def answer_hangup(self, rest: str, body: bytes) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer_cut(self, rest: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"too short")
        self.close_connection = True

    def answer_binary(self, rest: str, body: bytes) -> None:
        self.reply(200, b"a\x00\xff\xed\xa0\x80")

    def answer_cookie(self, rest: str, body: bytes) -> None:
        self.reply(302, Location="/echo", Set_Cookie="session=1")


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
    setattr(Site, f"do_{_method}", Site.handle_any)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Site)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what many of these tests are about."""


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serving(Server(("127.0.0.1", 0)))


def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def send(params: Any, egress: Egress | None = None, ctx: StepContext = CTX) -> Outcome:
    handler = builtin_registry(egress=egress or Egress(allow_internal=True)).find("http_request")
    assert handler is not None
    assert handler.is_async
    call = handler.bind(ctx, params)
    assert not isinstance(call, Failed)

    async def run() -> Any:
        return await call()

    return handler.outcome_of(asyncio.run(run()))


def echoed(params: Any, **options: Any) -> dict[str, Any]:
    outcome = send(params, **options)
    assert isinstance(outcome, Completed), outcome
    assert outcome.output["status"] == 200
    return json.loads(outcome.output["body"])


def failure_of(params: Any, **options: Any) -> Failed:
    outcome = send(params, **options)
    assert isinstance(outcome, Failed), outcome
    return outcome


def test_output_is_status_and_text_and_never_merges(base: str):
    assert send({"url": f"{base}/status/201"}) == Completed(output={"status": 201, "body": "said 201"}, merges=False)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "post"])
def test_methods(base: str, method: str):
    assert echoed({"url": f"{base}/echo", "method": method})["method"] == method.upper()


def test_head_has_no_body(base: str):
    assert send({"url": f"{base}/echo", "method": "HEAD"}) == Completed(output={"status": 200, "body": ""})


@pytest.mark.parametrize(
    ("body", "sent"), [("text", "text"), ({"a": [1, None]}, '{"a":[1,null]}'), ([1], "[1]"), (0, "0"), ("", "")]
)
def test_bodies_are_sent_as_text_or_json(base: str, body: Any, sent: str):
    got = echoed({"url": f"{base}/echo", "method": "POST", "body": body})
    assert got["body"] == sent
    assert got["headers"]["Content-Type"] == "application/json"


def test_content_type_of_the_author_stays(base: str):
    got = echoed({"url": f"{base}/echo", "method": "POST", "body": "x", "headers": {"content-TYPE": "text/plain"}})
    assert {name.lower(): value for name, value in got["headers"].items()}["content-type"] == "text/plain"
    assert "Content-Type" not in echoed({"url": f"{base}/echo"})["headers"]


def test_idempotency_key_is_ours_unless_the_author_set_one(base: str):
    assert echoed({"url": f"{base}/echo"})["headers"]["Idempotency-Key"] == "flow:b"
    got = echoed({"url": f"{base}/echo", "headers": {"idempotency-key": "mine"}})
    assert [value for name, value in got["headers"].items() if name.lower() == "idempotency-key"] == ["mine"]


def test_headers_are_sent_and_dangerous_ones_dropped(base: str):
    headers = {
        "X-Text": "grün",
        "X-Number": 5,
        "X-None": None,
        "Host": "metadata.internal",
        "X-Evil\r\nX-Injected": "1",
        "X-Evil-Value": "1\r\nX-Injected: 1",
        "Content-Length": "3",
    }
    got = echoed({"url": f"{base}/echo", "headers": headers})["headers"]
    assert got["X-Number"] == "5"
    assert got["X-Text"].encode("latin-1").decode("latin-1") == "grün"
    assert got["Host"] == base.removeprefix("http://")
    assert not got.keys() & {"X-Injected", "X-None", "X-Evil-Value"}


def test_user_and_password_become_basic_authentication(base: str):
    url = base.replace("http://", "http://me:s%40crt@")
    assert echoed({"url": f"{url}/echo"})["headers"]["Authorization"] == "Basic bWU6c0BjcnQ="
    assert failure_of({"url": f"{url}/status/404"}).message == f"HTTP 404 from {base}/status/404"


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (404, False), (429, False), (500, True), (503, True), (599, True)]
)
def test_error_statuses_fail(base: str, status: int, retryable: bool):
    url = f"{base}/status/{status}"
    assert failure_of({"url": url}) == Failed(
        message=f"HTTP {status} from {url}",
        retryable=retryable,
        details={"status": status, "body": f"said {status}"},
    )


@pytest.mark.parametrize("status", [200, 299, 300, 304])
def test_other_statuses_complete(base: str, status: int):
    outcome = send({"url": f"{base}/status/{status}"})
    assert isinstance(outcome, Completed)
    assert outcome.output["status"] == status


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (None, "missing required param: url"),
        ({"url": ""}, "missing required param: url"),
        ({"url": 5}, "missing required param: url"),
        ({"url": "http://a", "method": "TRACE"}, "unsupported method 'TRACE'"),
        ({"url": "http://a", "method": None}, "unsupported method None"),
        ({"url": "http://a", "headers": []}, "headers must be an object"),
        ({"url": "http://a", "timeout_ms": 0}, "timeout_ms must be"),
        ({"url": "http://a", "timeout_ms": "5"}, "timeout_ms must be"),
        ({"url": "http://a", "timeout_ms": float("nan")}, "timeout_ms must be"),
        ({"url": "not a url"}, "invalid url"),
        ({"url": "file:///etc/passwd"}, BLOCKED),
    ],
)
def test_wrong_params_fail_for_good(params: Any, message: str):
    failure = failure_of(params)
    assert failure.message.startswith(message)
    assert not failure.retryable


# --- redirects


def test_ten_redirects_are_followed_and_the_eleventh_is_not(base: str):
    assert echoed({"url": f"{base}/redirect/10"})["method"] == "GET"
    failure = failure_of({"url": f"{base}/redirect/11"})
    assert (failure.message, failure.retryable) == ("more than 10 redirects", False)


def test_redirect_keeps_the_body_only_where_it_must(base: str):
    post = {"method": "POST", "body": "x"}
    assert echoed({"url": f"{base}/to/303//echo", **post})["method"] == "GET"
    got = echoed({"url": f"{base}/to/307//echo", **post})
    assert (got["method"], got["body"]) == ("POST", "x")


def test_credentials_stay_at_the_origin(server: Server, base: str):
    headers = {"Authorization": "Bearer x", "Cookie": "a=b"}
    assert "Authorization" in echoed({"url": f"{base}/to/302//echo", "headers": headers})["headers"]
    other = f"http://localhost:{server.server_port}"
    got = echoed({"url": f"{base}/to/302/{other}/echo", "headers": headers})["headers"]
    assert got["Host"] == other.removeprefix("http://")
    assert not got.keys() & {"Authorization", "Cookie"}


def test_cookies_are_not_kept(base: str):
    assert "Cookie" not in echoed({"url": f"{base}/cookie"})["headers"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.com/"])
def test_redirect_to_another_scheme_is_blocked(base: str, target: str):
    assert failure_of({"url": f"{base}/to/302/{target}"}).message == BLOCKED


# --- bodies


def test_compressed_bodies_are_unpacked(base: str):
    for path, text in (("gzip", "first second"), ("deflate/zlib", "wrapped"), ("deflate/raw", "raw")):
        assert send({"url": f"{base}/{path}"}) == Completed(output={"status": 200, "body": text})


def test_unknown_encodings_fail_for_good(base: str):
    failure = failure_of({"url": f"{base}/encoded/br"})
    assert (failure.message, failure.retryable) == ("unsupported content-encoding 'br'", False)


@pytest.mark.parametrize("how", ["short", "wrong"])
def test_damaged_bodies_are_worth_another_attempt(base: str, how: str):
    failure = failure_of({"url": f"{base}/broken/{how}"})
    assert (failure.retryable, failure.kind) == (True, FailureKind.NETWORK)


@pytest.mark.parametrize("path", ["bomb", f"size/{MAX_BODY_BYTES + 1}", "endless"])
def test_bodies_over_the_cap_fail_for_good(base: str, path: str):
    failure = failure_of({"url": f"{base}/{path}"})
    assert failure.message == f"response body is larger than {MAX_BODY_BYTES} bytes"
    assert not failure.retryable


def test_largest_body_is_read(base: str):
    outcome = send({"url": f"{base}/size/{MAX_BODY_BYTES}"})
    assert isinstance(outcome, Completed)
    assert len(outcome.output["body"]) == MAX_BODY_BYTES


def test_bytes_that_are_no_text_can_be_stored(base: str):
    outcome = send({"url": f"{base}/binary"})
    assert isinstance(outcome, Completed)
    assert set(outcome.output["body"]) == {"a", "\ufffd"}


# --- time and network


def test_timeout_bounds_a_dripping_body(base: str):
    started = time.monotonic()
    failure = failure_of({"url": f"{base}/drip", "timeout_ms": 300})
    assert time.monotonic() - started < 30
    assert failure.message == f"request to {base}/drip timed out after 300 ms"
    assert (failure.retryable, failure.kind) == (True, FailureKind.TIMEOUT)


def test_timeout_bounds_a_slow_resolver():
    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    failure = failure_of({"url": "http://slow.test/", "timeout_ms": 50}, egress=Egress(resolve=never))
    assert failure.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize("path", ["hangup", "cut"])
def test_broken_connections_are_retryable(base: str, path: str):
    failure = failure_of({"url": f"{base}/{path}"})
    assert (failure.retryable, failure.kind) == (True, FailureKind.NETWORK)


def test_refused_connections_and_unknown_hosts_are_retryable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failure = failure_of({"url": f"http://127.0.0.1:{port}/"})
    assert (failure.retryable, failure.kind) == (True, FailureKind.NETWORK)

    async def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    failure = failure_of({"url": "http://nobody.test/"}, egress=Egress(resolve=unknown))
    assert (failure.retryable, failure.kind) == (True, FailureKind.NETWORK)


def test_next_address_is_tried_when_one_refuses(server: Server):
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2" if host == "two.test" else "::1", "127.0.0.1"]

    only_v4 = Egress(allow_internal=True, resolve=two)
    assert echoed({"url": f"http://two.test:{server.server_port}/echo"}, egress=only_v4)["method"] == "GET"


# --- what never leaves


class Recorder:
    """A resolver that gives one answer after the other, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "0177.1",
    ],
)
def test_this_machine_cannot_be_reached_under_any_name(server: Server, host: str):
    failure = failure_of({"url": f"http://{host}:{server.server_port}/echo"}, egress=Egress())
    assert failure == Failed(message=BLOCKED, retryable=False)
    assert server.seen == []


def test_one_internal_address_among_public_ones_is_enough(server: Server):
    egress = Egress(resolve=Recorder(["93.184.216.34", "127.0.0.1"]))
    assert failure_of({"url": f"http://mixed.test:{server.server_port}/echo"}, egress=egress).message == BLOCKED
    assert server.seen == []


def test_the_checked_address_is_the_one_connected_to(server: Server, monkeypatch: pytest.MonkeyPatch):
    """A name that is harmless when checked and internal a moment later gets no second look-up."""
    monkeypatch.setattr(orchestrator.egress.addresses, "is_public", lambda address: address == "127.0.0.1")
    rebinding = Recorder(["127.0.0.1"], ["127.0.0.99"])
    got = echoed({"url": f"http://rebind.test:{server.server_port}/echo"}, egress=Egress(resolve=rebinding))
    assert rebinding.asked == 1
    assert got["headers"]["Host"] == f"rebind.test:{server.server_port}"


def test_each_redirect_is_checked_anew(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(orchestrator.egress.addresses, "is_public", lambda address: address == "127.0.0.1")
    answers = Recorder(["127.0.0.1"], ["169.254.169.254"])
    url = f"http://public.test:{server.server_port}/to/302/http://inside.test:{server.server_port}/echo"
    assert failure_of({"url": url}, egress=Egress(resolve=answers)) == Failed(message=BLOCKED, retryable=False)
    assert [path for _, path, *_ in server.seen] == [f"/to/302/http://inside.test:{server.server_port}/echo"]


def test_a_name_that_rebinds_between_redirects_is_caught(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(orchestrator.egress.addresses, "is_public", lambda address: address == "127.0.0.1")
    answers = Recorder(["127.0.0.1"], ["10.0.0.1"])
    url = f"http://a.test:{server.server_port}/to/302//echo"
    assert failure_of({"url": url}, egress=Egress(resolve=answers)).message == BLOCKED
    assert [path for _, path, *_ in server.seen] == ["/to/302//echo"]


def test_environment_cannot_redirect_requests(base: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert echoed({"url": f"{base}/echo"})["method"] == "GET"


def test_dry_run_sends_nothing(server: Server, base: str):
    ctx = StepContext(
        instance_id=uuid4(), sequence="s", block_id="b", handler="http_request", idempotency_key="k", dry_run=True
    )
    assert send({"url": f"{base}/echo", "method": "POST"}, ctx=ctx) == Completed(
        output={
            "dry_run": True,
            "handler": "http_request",
            "would": f"POST {base}/echo",
            "status": 200,
            "body": "",
        }
    )
    assert failure_of({"url": "ftp://x"}, ctx=ctx).message == BLOCKED
    assert server.seen == []


# --- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop.test"]
    command += ["-addext", "subjectAltName=DNS:shop.test", "-keyout", str(path), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


def test_tls_names_and_verifies_the_host_and_not_the_address(certificate: Path):
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    tls_server = Server(("127.0.0.1", 0))
    tls_server.socket = context.wrap_socket(tls_server.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=str(certificate))
    for running in serving(tls_server):
        egress = Egress(allow_internal=True, resolve=Recorder(["127.0.0.1"]), tls=trusting)
        assert echoed({"url": f"https://shop.test:{running.server_port}/echo"}, egress=egress)["method"] == "GET"
        failure = failure_of({"url": f"https://other.test:{running.server_port}/echo"}, egress=egress)
        assert "certificate verify failed" in failure.message
        untrusting = Egress(allow_internal=True, resolve=Recorder(["127.0.0.1"]))
        failure = failure_of({"url": f"https://shop.test:{running.server_port}/echo"}, egress=untrusting)
        assert "certificate verify failed" in failure.message
    assert names == ["shop.test", "other.test", "shop.test"]
