"""Everything the demo runs on, on this machine: servers, API, service loops and one worker for each of two queues."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import embedded
from orchestrator.dev import ChildSpec, LinePrinter, Supervisor, answers
from orchestrator.embedded import Servers
from orchestrator.embedded.home import free_port
from orchestrator.store import migrate
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from queues.connection import connect

HOST = "127.0.0.1"
READY_SECONDS = 60.0
OWN_PREFIXES = ("ORCHESTRATOR_", "ORCH8_")
"""Settings of another installation must not reach this one."""

WORKERS = {"worker-default": ("default", 1), "worker-gpu": ("gpu", 2)}
"""Worker processes: the queue each serves, and how many steps it runs at once."""


class StageError(Exception):
    """Something the demo needs did not start; the message says what and where its log is."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What runs, and how to hurt it."""

    address: str
    servers: Servers
    store: Store
    children: Supervisor
    logs: Path

    def kill(self, worker: str) -> None:
        """Kill a worker with all its processes, as a machine that loses power would. It stays down."""
        pid = self.children.pid(worker)
        if pid is None:
            raise StageError(f"{worker} is not running; see {self.logs / worker}.log")
        os.killpg(pid, signal.SIGKILL)
        self.children.stop_child(worker)

    def empty_redis(self) -> int:
        """Throw away everything in Redis: queues, limits, all; returns how many keys there were."""
        with contextlib.closing(connect(self.servers.broker_url)) as redis:
            keys = int(redis.dbsize())
            redis.flushall()
        return keys

    def replace(self, worker: str) -> None:
        """Start another worker in the place of a killed one."""
        self.children.start_child(worker)


@contextlib.contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Have everything for a block; all of it ends with the block, however the block ends.

    Raises:
        StageError: A process did not become ready.
        ServersError: A server did not start.
    """
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(embedded.running(directory, environment={}))
        migrate.upgrade(servers.database_url)
        store = PostgresStore(servers.database_url)
        stack.callback(store.close)
        port = free_port()
        specs = _specs(port)
        logs = servers.log_directory
        logs.mkdir(parents=True, exist_ok=True)
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        printer = LinePrinter([spec.name for spec in specs], nowhere, directory=logs)
        stack.callback(printer.close)
        children = stack.enter_context(Supervisor(specs, env=_environment(servers), printer=printer))
        if missing := children.wait_ready(READY_SECONDS):
            raise StageError(f"not ready after {READY_SECONDS:g} s: {', '.join(missing)}; see {logs}")
        yield Stage(address=f"http://{HOST}:{port}", servers=servers, store=store, children=children, logs=logs)


def _environment(servers: Servers) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_PREFIXES)}
    return inherited | servers.environment


def _specs(port: int) -> tuple[ChildSpec, ...]:
    command = (sys.executable, "-m", "orchestrator.cli")
    live = f"http://{HOST}:{port}/health/live"
    api = (*command, "api", "--host", HOST, "--port", str(port), "--insecure")
    return (
        ChildSpec(name="api", argv=api, ready=lambda: answers(live)),
        ChildSpec(name="service", argv=(*command, "service")),
        *(
            ChildSpec(name=name, argv=(*command, "worker", *_worker_options(name, queue, slots)))
            for name, (queue, slots) in WORKERS.items()
        ),
    )


def _worker_options(name: str, queue: str, slots: int) -> tuple[str, ...]:
    return ("--name", name, "-Q", queue, "-c", str(slots), "--import", "workers.demo.handlers")
