"""The same works on Restate: its server, and two processes that serve the same handlers as two services.

Restate has a store of its own (RocksDB); its log is flushed before anything is acknowledged, which is its default. The
two services take the workflows in turn, so that both processes are used: one deployment may get a single connection.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from orchestrator.dev import ChildSpec
from orchestrator.embedded import Servers
from tests.benchmarks import installing
from tests.benchmarks.ours import LOCAL, READY_SECONDS, WORKERS, free_port, supervised
from tests.benchmarks.rival import DONE, Rival
from tests.benchmarks.wire import Connection, spread
from tests.benchmarks.works import Chain

NAME = "restate"
SERVER = "@restatedev/restate-server"
PACKAGES = ("restate-sdk", "hypercorn")
PROGRAM = Path(__file__).with_name("peer_restate_process.py")
CONNECTIONS = 16


class Restate(Rival):
    """Restate as a `Bench`; made by `running`.

    Its store is asked by waiting for each invocation rather than by counting, which took it longer.
    """

    engine = NAME

    def __init__(self, ingress: Sequence[Connection], admin: Connection) -> None:
        self._ingress = ingress
        self._admin = admin
        self._sent: dict[str, float] = {}
        self._turn = 0

    def start(self, workflow: str, count: int, argument: int) -> list[str]:
        """Send invocations, over several connections at once: there is no call for many."""

        def send(connection: Connection, number: int) -> None:
            moment = time.time()
            answer = connection.post(f"/Bench{number % WORKERS}/{workflow}/send", argument)
            self._sent[answer["invocationId"]] = moment

        before = set(self._sent)
        spread(self._ingress[:count], range(self._turn, self._turn + count), send)
        self._turn += count
        return [id_ for id_ in self._sent if id_ not in before]

    def states(self, ids: Sequence[str]) -> dict[str, int]:
        """Wait until all are done, and say so."""
        spread(self._ingress, ids, lambda connection, id_: connection.get(f"/restate/invocation/{id_}/attach"))
        return {DONE: len(ids)}

    def recorded(self, ids: Sequence[str]) -> int:
        """Count the runs in the journals of invocations."""
        named = ", ".join(f"'{id_}'" for id_ in ids)
        query = f"SELECT count(*) AS n FROM sys_journal WHERE entry_type = 'Command: Run' AND id IN ({named})"
        return int(self._admin.post("/query", {"query": query})["rows"][0]["n"])

    def facts(self, id_: str) -> Chain:
        """Give when an invocation was sent, and what it returned."""
        return Chain(accepted=self._sent[id_], ended=self._ingress[0].get(f"/restate/invocation/{id_}/output"))


@contextlib.contextmanager
def running(servers: Servers, logs: Path, folder: Path) -> Iterator[Restate]:
    """Run Restate's server and two processes with handlers for a block; its data lies beside PostgreSQL's."""
    python = installing.environment(folder / NAME, PACKAGES)
    binary = _binary(folder)
    ports = [free_port() for _ in range(3 + WORKERS)]
    node, admin, ingress, *services = ports
    data = servers.directory / NAME
    data.mkdir(exist_ok=True)
    environment = {
        "RESTATE_BASE_DIR": str(data),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_IP": LOCAL,
        "RESTATE_BIND_PORT": str(node),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "warn",
        "DO_NOT_TRACK": "1",
    }
    specs = [ChildSpec(name="restate", argv=(str(binary), "--no-logo"))]
    specs += [
        ChildSpec(name=f"restate-{number}", argv=(str(python), str(PROGRAM), f"Bench{number}", str(port)))
        for number, port in enumerate(services)
    ]
    with supervised(specs, environment, logs), contextlib.ExitStack() as stack:
        opened = [_connect(port) for port in (admin, *[ingress] * CONNECTIONS)]
        for connection in opened:
            stack.callback(connection.close)
        for port in services:
            _register(opened[0], port)
        yield Restate(opened[1:], opened[0])


def _binary(folder: Path) -> Path:
    modules = installing.npm_package(folder / f"{NAME}-server", SERVER)
    found = sorted(modules.glob(f"{SERVER}-*/bin/restate-server"))
    if not found:
        raise installing.Unavailable(f"{SERVER} has no program for this system")
    return found[0]


def _connect(port: int) -> Connection:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            return Connection(port)
        except OSError as problem:
            if time.monotonic() > until:
                raise RuntimeError(f"Restate does not listen after {READY_SECONDS:g} s") from problem
        time.sleep(0.1)


def _register(admin: Connection, port: int) -> None:
    """Tell the server of a process with handlers; both may need a moment before that works."""
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            admin.post("/deployments", {"uri": f"http://{LOCAL}:{port}"})
        except RuntimeError:
            if time.monotonic() > until:
                raise
        else:
            return
        time.sleep(0.2)


def versions(folder: Path) -> dict[str, str]:
    """Name what is installed."""
    package = folder / f"{NAME}-server" / "node_modules" / SERVER / "package.json"
    server = str(orjson.loads(package.read_bytes())["version"])
    return installing.versions_of(folder / NAME / "bin" / "python", PACKAGES) | {"restate-server": server}
