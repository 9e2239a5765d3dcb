"""`orchestrator server` over PostgreSQL and Redis that are empty: readiness, work, an orderly end, and no orphans."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from orchestrator import embedded
from orchestrator.all_in_one import Part, ServerOptions, child_specs
from orchestrator.embedded import home, processes
from orchestrator.embedded.processes import Deadline, Process
from orchestrator.settings import Settings
from orchestrator.supervision.printing import MAX_WAITING_LINES, Overflowing
from tests.support import effects
from tests.support.databases import ask
from tests.support.stack import children_of
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Server:
    """`orchestrator server` in a process of its own."""

    def __init__(self, url: str, redis_url: str, directory: Path, *arguments: str) -> None:
        self.database = url
        self.port = home.free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = directory / "server.log"
        environment = {
            **os.environ,
            "ORCH8_DATABASE_URL": url,
            "ORCH8_REDIS_URL": redis_url,
            "ORCH8_HTTP_ADDR": f"127.0.0.1:{self.port}",
            "ORCH8_REQUIRE_TENANT_HEADER": "false",
            "ORCHESTRATOR_IMPORT": "tests.support.handlers",
            "PYTHONPATH": str(REPOSITORY),
            effects.PATH_VARIABLE: str(directory / "effects"),
        }
        for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "ORCHESTRATOR_API_KEY", "ORCH8_API_KEY"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "orchestrator.cli", "server", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/health/ready", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self) -> None:
        wait_until(self.is_ready, self.log.read_text)

    def start(self, **step: object) -> str:
        """Start a sequence of one step; returns the instance."""
        sequence = str(uuid4())
        document = {
            "id": sequence,
            "tenant_id": "t",
            "namespace": "d",
            "name": sequence,
            "version": 1,
            "created_at": "2026-01-01T00:00:00Z",
            "blocks": [{"type": "step", "id": "a", **step}],
        }
        with httpx.Client(base_url=f"{self.address}/api/v1", timeout=30) as client:
            assert client.post("/sequences", json=document).status_code == 201
            body = {"sequence_id": sequence, "tenant_id": "t", "namespace": "d"}
            return str(client.post("/instances", json=body).json()["id"])

    def state(self, instance: str) -> str:
        return str(httpx.get(f"{self.address}/api/v1/instances/{instance}", timeout=30).json()["state"])

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        return ask(self.database, statement)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def server(servers: embedded.Servers, migrated_template: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that are gone after the test; each has a database of its own, migrated or empty."""
    made: list[Server] = []

    def begin(*arguments: str, database: str | None = None, is_empty: bool = False) -> Server:
        template = None if is_empty else migrated_template
        url = database or embedded.fresh_database(servers, f"server_{uuid4().hex}", template=template)
        made.append(Server(url, servers.redis_url, tmp_path, *arguments))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(60)


def _family(pid: int) -> list[Process]:
    """A process and all below it, as they are now."""
    found = processes.identify(pid)
    return [*([found] if found else []), *(each for child in children_of(pid) for each in _family(child))]


@needs_linux
def test_the_server_runs_work_and_gives_it_back_when_it_ends(server: Callable[..., Server], tmp_path: Path) -> None:
    first = server("--insecure", "--concurrency", "2", is_empty=True)
    first.wait_ready()
    quick = first.start(handler="effect")
    wait_until(lambda: first.state(quick) == "completed", first.log.read_text)
    slow = first.start(handler="until_released", params={"path": str(tmp_path / "go"), "seconds": 600})
    wait_until(lambda: first.rows("SELECT 1 FROM steps WHERE state = 'claimed'"), first.log.read_text)
    family = _family(first.process.pid)
    deadline = Deadline.after(20)
    assert first.end(signal.SIGTERM) == 0, first.log.read_text()
    assert not deadline.is_over
    assert [each for each in family if not processes.wait_for_end(each, Deadline.after(10))] == []
    assert first.rows("SELECT state, losses FROM steps") == [("ready", 0)], first.log.read_text()
    (tmp_path / "go").touch()
    second = server("--insecure", "--concurrency", "1", database=first.database)
    second.wait_ready()
    wait_until(lambda: second.state(slow) == "completed", second.log.read_text)
    family = _family(second.process.pid)
    assert len(family) > 4
    second.process.kill()
    second.process.wait(60)
    assert [each for each in family if not processes.wait_for_end(each, Deadline.after(30))] == []


@needs_linux
def test_several_processes_serve_the_api_on_one_port_and_one_that_dies_is_replaced(
    server: Callable[..., Server],
) -> None:
    several = server("--insecure", "--without", "loops", "--without", "workers", "--api-processes", "2")
    wait_until(lambda: len(_listeners(several.port)) == 2, several.log.read_text)
    family = _family(several.process.pid)
    first, second = (each for each in family if "api" in _words(each))
    assert {_live(several) for _ in range(20)} == {True}
    both = _listeners(several.port)
    os.kill(first.pid, signal.SIGKILL)
    # Its threads may end after it, and with the last of them its socket.
    wait_until(lambda: both - _listeners(several.port), "the socket of the killed process to go")
    assert {_live(several) for _ in range(20)} == {True}
    wait_until(lambda: len(_listeners(several.port)) == 2, several.log.read_text)
    assert {_live(several) for _ in range(20)} == {True}
    family = _family(several.process.pid)
    assert second in family
    assert first not in family
    assert several.end(signal.SIGTERM) == 0
    assert [each for each in family if not processes.wait_for_end(each, Deadline.after(10))] == []
    assert not _listeners(several.port)


def _listeners(port: int) -> set[str]:
    """Name the sockets that listen on a port of this machine, by their inodes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def _words(process: Process) -> list[str]:
    """Give the command line of a process."""
    return Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")


def test_a_server_that_shares_its_port_takes_none_that_is_in_use(server: Callable[..., Server]) -> None:
    arguments = ("--insecure", "--without", "loops", "--without", "workers", "--api-processes", "2")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = server(*arguments, "--port", str(taken.getsockname()[1]))
        assert refused.process.wait(60) == 2
    assert "cannot listen on" in refused.log.read_text()


def test_a_server_without_loops_and_workers_serves_and_says_what_it_lacks(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_READY_WITHOUT_SERVICE", "false")  # as where loops run on another machine
    alone = server("--insecure-auth", "--insecure-storage", "--without", "loops", "--without", "workers")
    wait_until(lambda: _live(alone), alone.log.read_text)
    answer = httpx.get(f"{alone.address}/health/ready", timeout=30)
    assert (answer.status_code, answer.content, answer.headers["x-not-ready"]) == (503, b"", "loops")
    assert alone.end(signal.SIGTERM) == 0


def _live(server: Server) -> bool:
    try:
        return httpx.get(f"{server.address}/health/live", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_server_that_nobody_gave_a_key_ends_and_says_so(server: Callable[..., Server]) -> None:
    refused = server("--without", "loops", "--without", "workers")
    assert refused.process.wait(60) == 2
    assert "ORCH8_API_KEY is not set" in refused.log.read_text()


def test_a_server_that_has_no_key_for_what_it_stores_ends_and_says_so(server: Callable[..., Server]) -> None:
    refused = server("--insecure-auth", "--without", "loops", "--without", "workers")
    assert refused.process.wait(60) == 2
    assert "ORCH8_ENCRYPTION_KEY is not set" in refused.log.read_text()


@pytest.mark.parametrize("is_empty", [False, True])
def test_options_of_the_server_become_command_lines(monkeypatch: pytest.MonkeyPatch, *, is_empty: bool) -> None:
    for name in ("ORCHESTRATOR_READY_NEEDS", "ORCHESTRATOR_READY_WITHOUT_SERVICE", "ORCHESTRATOR_SHUTDOWN_GRACE"):
        monkeypatch.delenv(name, raising=False)
        if is_empty:
            monkeypatch.setenv(name, "")
    options = ServerOptions(host="::", port=80, is_insecure=True, workers=2, queues=("a", "b"), imports=("m",))
    specs = {spec.name: spec for spec in child_specs(options, Settings(run_migrations=True))}
    assert list(specs) == ["worker-1", "worker-2", "api", "loops"]
    assert specs["api"].argv[3:] == ("api", "--host", "::", "--port", "80", "--insecure-auth")
    assert specs["api"].env["ORCHESTRATOR_READY_NEEDS"] == "redis,workers"
    assert specs["worker-2"].argv[-4:] == ("--queues", "a,b", "--import", "m")
    assert specs["worker-2"].env["ORCHESTRATOR_SHUTDOWN_GRACE"] == "2.5"
    assert {spec.env["ORCHESTRATOR_AWAIT_MIGRATIONS"] for spec in specs.values()} == {"True"}
    many = ServerOptions(host="h", port=1, api_processes=2, parts=frozenset({Part.API}))
    assert [(spec.name, spec.argv[-1]) for spec in child_specs(many, Settings())] == [
        ("api-1", "--share-port"),
        ("api-2", "--share-port"),
    ]
    alone = ServerOptions(host="h", port=1, parts=frozenset({Part.API}))
    (api,) = child_specs(alone, Settings(run_migrations=False))
    assert api.env["ORCHESTRATOR_READY_NEEDS"] == "redis"
    assert api.env["ORCHESTRATOR_READY_WITHOUT_SERVICE"] == "True"
    assert api.env["ORCHESTRATOR_AWAIT_MIGRATIONS"] == "False"


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        log = Overflowing(stream)
        for _ in range(2 * MAX_WAITING_LINES):
            log.write("x" * 100)
        log.close(timeout=0.01)
        os.close(reading)
