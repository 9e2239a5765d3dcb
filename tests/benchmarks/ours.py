"""The works on our own engine: two Celery workers of one slot each, the loops, all as users start them.

Instances are started as application code does it, through the engine's door, from this process.
"""

import contextlib
import io
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from orchestrator import embedded
from orchestrator.dev import ChildSpec, LinePrinter, Supervisor
from orchestrator.doorbell import Doorbell
from orchestrator.embedded import Servers
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store import definitions, instances, migrate, upkeep
from orchestrator.store import workers as known
from orchestrator.store.instances import Profile
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from queues.broker import Broker, client_app
from sequences.document import parse_definition, to_document
from tests.benchmarks.figures import OURS
from tests.benchmarks.machine import check_durability
from tests.benchmarks.works import (
    W1_INSTANCES,
    W1_STARTED_TOGETHER,
    W1_STEPS,
    W2_STEPS,
    W3_WIDTH,
    W4_STEPS,
    Chain,
)

DATABASE = "bench_orchestrator"
HANDLERS = "tests.benchmarks.handlers"
LOCAL = "127.0.0.1"
WORKERS = 2
READY_SECONDS = 30.0
WORK_SECONDS = 120.0
"""A work that takes longer has failed: somebody waits for ever."""

LONGEST_STEP_SECONDS = 0.05
"""The same for one step of a chain that is longer than usual."""

COARSE_SECONDS, FINE_SECONDS = 0.02, 0.005
"""Pauses between two looks at the store: coarse where only stored times count, or the work takes seconds."""

LOOPS = "from orchestrator.service import run; from orchestrator.settings import Settings; run(Settings())"


def new_database(servers: Servers) -> str:
    """Make an empty, migrated database; returns its URL."""
    url = embedded.fresh_database(servers, DATABASE)
    migrate.upgrade(url)
    store = PostgresStore(url)
    with store.transaction() as tx:
        upkeep.make_partitions(tx)
    store.close()
    check_durability(url)
    return url


def define(store: Store, name: str, blocks: Sequence[dict[str, Any]]) -> UUID:
    """Store a sequence; returns its id."""
    sequence_id = uuid4()
    head = {"id": str(sequence_id), "tenant_id": "bench", "namespace": "bench", "name": name, "version": 1}
    document = to_document(parse_definition({**head, "created_at": "2026-01-01T00:00:00Z", "blocks": list(blocks)}))
    stored = definitions.StoredDefinition(
        id=sequence_id,
        tenant_id="bench",
        namespace="bench",
        name=name,
        version=1,
        deprecated=False,
        document=document,
        content_hash="",
    )
    with store.transaction() as tx:
        definitions.insert(tx, stored)
    return sequence_id


def flat(length: int, handler: str) -> list[dict[str, Any]]:
    """Give a list of steps."""
    return [{"type": "step", "id": f"s{number}", "handler": handler} for number in range(length)]


def fan_out(handler: str) -> list[dict[str, Any]]:
    """Give a for_each that runs all its items at once, and a step behind it."""
    body = [{"type": "step", "id": "each", "handler": handler, "params": {"item": "{{ item }}"}}]
    each = {"type": "for_each", "id": "fan", "collection": "items", "concurrency": W3_WIDTH, "body": body}
    return [each, {"type": "step", "id": "join", "handler": handler}]


def loop(handler: str, steps: int = W4_STEPS) -> list[dict[str, Any]]:
    """Give a loop around one step."""
    body = [{"type": "step", "id": "body", "handler": handler}]
    return [{"type": "loop", "id": "loop", "condition": "true", "max_iterations": steps, "body": body}]


class Orchestrator:
    """Our engine as a `Bench`; made by `running`."""

    engine = OURS

    def __init__(self, store: Store, engine: Engine, handler: str, *, url: str, ports: Sequence[int]) -> None:
        self.store = store
        self.url = url
        self.ports = ports
        self.handler = handler
        self._engine = engine
        self._many = define(store, "w1", flat(W1_STEPS, handler))
        self._few = define(store, "w2", flat(W2_STEPS, handler))
        self._wide = define(store, "w3", fan_out(handler))
        self._long = define(store, "w4", loop(handler))

    def throughput(self) -> float:
        """Do W1."""
        began = time.perf_counter()
        ids: list[UUID] = []
        while len(ids) < W1_INSTANCES:
            ids += self.start(self._many, min(W1_STARTED_TOGETHER, W1_INSTANCES - len(ids)))
        took = self.wait(ids, began, COARSE_SECONDS)
        steps = W1_INSTANCES * W1_STEPS
        self.expect(ids, steps)
        return steps / took

    def chain(self) -> Chain:
        """Do one instance of W2."""
        return self._chain(self._few, W2_STEPS, WORK_SECONDS)

    def fan_out(self) -> float:
        """Do W3."""
        began = time.perf_counter()
        ids = self.start(self._wide, 1, data={"items": list(range(W3_WIDTH))})
        took = self.wait(ids, began, FINE_SECONDS)
        self.expect(ids, W3_WIDTH + 1)
        return took

    def long_chain(self, steps: int = W4_STEPS) -> Chain:
        """Do W4, or the same with more steps."""
        if steps == W4_STEPS:
            return self._chain(self._long, steps, WORK_SECONDS)
        sequence_id = define(self.store, f"w4-{steps}", loop(self.handler, steps))
        return self._chain(sequence_id, steps, max(WORK_SECONDS, steps * LONGEST_STEP_SECONDS))

    def _chain(self, sequence_id: UUID, length: int, limit: float) -> Chain:
        ids = self.start(sequence_id, 1)
        self.wait(ids, time.perf_counter(), COARSE_SECONDS, limit)
        self.expect(ids, length)
        with self.store.transaction() as tx:
            record = instances.get(tx, ids[0])
            ended = [row[8].timestamp() for row in instances.attempts(tx, ids[0])]
        if record is None:
            raise LookupError(f"instance {ids[0]} has gone")
        return Chain(accepted=record.instance.created_at.timestamp(), ended=ended)

    def define(self, name: str, blocks: Sequence[dict[str, Any]]) -> UUID:
        """Store a sequence of blocks; returns its id."""
        return define(self.store, name, blocks)

    def start(self, sequence_id: UUID, count: int, data: Any = None) -> list[UUID]:
        """Start instances in one call; returns their ids."""
        new = NewInstance(
            sequence_id=sequence_id, tenant_id="bench", namespace="bench", profile=Profile(data=data or {})
        )
        return [started.id for started in self._engine.start_many([new] * count)]

    def wait(self, ids: Sequence[UUID], began: float, pause: float, limit: float = WORK_SECONDS) -> float:
        """Wait until all are completed; returns the seconds since `began`."""
        while True:
            with self.store.transaction() as tx:
                rows = tx.query(
                    "SELECT state, count(*) FROM instances WHERE id = ANY(%s::uuid[]) GROUP BY state", (list(ids),)
                )
            took = time.perf_counter() - began
            states = dict(rows)
            if states.get("completed") == len(ids):
                return took
            if took > limit or states.keys() & {"failed", "cancelled", "paused"}:
                raise RuntimeError(f"after {took:.1f} s the instances of a work are {states}")
            time.sleep(pause)

    def expect(self, ids: Sequence[UUID], steps: int) -> None:
        """Check that every step has left its output and its history row, and none is left open."""
        with self.store.transaction() as tx:
            for rows, expected in (
                ("outputs WHERE block_id NOT IN ('fan', 'loop') AND", steps),
                ("attempts WHERE outcome = 'completed' AND", steps),
                ("steps WHERE", 0),
            ):
                found = tx.query(f"SELECT count(*) FROM {rows} instance_id = ANY(%s::uuid[])", (list(ids),))[0][0]
                if found != expected:
                    raise RuntimeError(f"{found} rows in {rows.split()[0]!r}, {expected} expected")


@contextlib.contextmanager
def running(
    servers: Servers, logs: Path, handler: str, *, apis: int = 0, workers: int = WORKERS, loops: bool = True
) -> Iterator[Orchestrator]:
    """Run workers, the loops and some API processes over a new database for a block; all steps use the handler."""
    url = new_database(servers)
    settings = Settings(database_url=url, redis_url=servers.redis_url, broker_url=servers.broker_url)
    store = PostgresStore(url, pool_size=5)
    doorbell = Doorbell(Broker(client_app(settings.celery_broker_url, store.installation())))
    specs = [_worker(number) for number in range(workers)]
    if loops:
        specs.append(ChildSpec(name="service", argv=(sys.executable, "-c", LOOPS)))
    ports = [free_port() for _ in range(apis)]
    specs += [_api(number, port) for number, port in enumerate(ports)]
    environment = servers.environment | {"DATABASE_URL": url, "ORCHESTRATOR_IMPORT": HANDLERS}
    try:
        with supervised(specs, environment, logs):
            _await_workers(store, settings, workers)
            for port in ports:
                _await_port(port)
            yield Orchestrator(store, Engine(store, doorbell, settings), handler, url=url, ports=ports)
    finally:
        doorbell.close()
        store.close()


@contextlib.contextmanager
def serving(servers: Servers, url: str, logs: Path) -> Iterator[int]:
    """Serve the API of a database that is there, from one process and for a block; gives its port. No steps run."""
    port = free_port()
    with supervised([_api(0, port)], servers.environment | {"DATABASE_URL": url}, logs):
        _await_port(port)
        yield port


@contextlib.contextmanager
def supervised(specs: Sequence[ChildSpec], environment: dict[str, str], logs: Path) -> Iterator[None]:
    """Run processes for a block, with default settings and nothing on the terminal; their logs go to a folder."""
    logs.mkdir(parents=True, exist_ok=True)
    printer = LinePrinter([spec.name for spec in specs], io.StringIO(), directory=logs, color=False)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ORCH", "DBOS"))}
    try:
        with Supervisor(specs, env=inherited | environment, printer=printer, restart=False):
            yield
    finally:
        printer.close()


def _worker(number: int) -> ChildSpec:
    options = ("-c", "1", "-n", f"bench{number}@%h", "--without-gossip", "--without-mingle", "-l", "INFO")
    return ChildSpec(
        name=f"worker-{number}", argv=(sys.executable, "-m", "celery", "-A", "workers", "worker", *options)
    )


def _api(number: int, port: int) -> ChildSpec:
    command = (sys.executable, "-m", "orchestrator.cli", "api", "--insecure", "--host", LOCAL, "--port", str(port))
    return ChildSpec(name=f"api-{number}", argv=command)


def free_port() -> int:
    """Name a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((LOCAL, port)) == 0:
                return
        if time.monotonic() > until:
            raise RuntimeError(f"nobody listens on port {port} after {READY_SECONDS:g} s")
        time.sleep(0.05)


def _await_workers(store: Store, settings: Settings, wanted: int) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        with store.transaction() as tx:
            alive = len(known.alive(tx, settings.dead_after))
        if alive == wanted:
            return
        if time.monotonic() > until:
            raise RuntimeError(f"{alive} of {wanted} workers are there after {READY_SECONDS:g} s")
        time.sleep(0.1)
