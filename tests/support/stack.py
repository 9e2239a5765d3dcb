"""A whole installation for tests: servers, database, and every process of ours as a real process.

    with Stack.running(tmp_path, workers={"w1": ("default",), "w2": ("default",)}) as stack:
        sequence = stack.define([{"type": "step", "id": "a", "handler": "effect"}])
        ids = stack.start_instances(sequence, 200)
        stack.kill("w1")
        stack.wait_for_end(ids)

Nothing is started again by itself: what a test kills stays dead until the test starts it.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from redis import Redis

from orchestrator import embedded
from orchestrator.dev import ChildSpec, LinePrinter, Supervisor, answers
from orchestrator.doorbell import Doorbell
from orchestrator.embedded import Servers, with_database, without_driver
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store import definitions, instances, migrate, upkeep
from orchestrator.store import workers as worker_rows
from orchestrator.store.instances import Profile
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from queues.addresses import is_redis
from queues.broker import Broker, client_app
from sequences.document import parse_definition, to_document
from tests.support import effects
from tests.support.effects import EffectLog
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
TENANT = "t"
NAMESPACE = "d"
ENDED = frozenset({"completed", "failed", "cancelled"})
_databases = itertools.count(1)
_brokers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One worker process.

    Args:
        queues: Queues it serves.
        concurrency: Children it forks.
    """

    queues: tuple[str, ...] = ("default",)
    concurrency: int = 1
    pool: str = "prefork"


class Stack:
    """A running installation; made by `running`."""

    def __init__(
        self, servers: Servers, directory: Path, processes: Supervisor, workers: Sequence[str], port: int
    ) -> None:
        self.servers = servers
        self.directory = directory
        self.processes = processes
        self.workers = tuple(workers)
        self.api_url = f"http://127.0.0.1:{port}"
        self.effects = EffectLog(directory / "effects")
        self.settings = Settings(
            database_url=servers.database_url, redis_url=servers.redis_url, broker_url=servers.broker_url
        )
        self.store = PostgresStore(servers.database_url, pool_size=5, overflow=5)
        self._doorbell = Doorbell(Broker(client_app(servers.broker_url, self.store.installation())))
        self.engine = Engine(self.store, self._doorbell, self.settings)
        self._started = dict.fromkeys(processes.names, datetime.min.replace(tzinfo=UTC))
        self._names = itertools.count(1)

    @classmethod
    @contextmanager
    def running(
        cls,
        directory: Path,
        *,
        workers: Mapping[str, WorkerSpec] | None = None,
        services: Sequence[str] = ("service",),
        with_api: bool = False,
        with_flower: bool = False,
        servers: Servers | None = None,
        template: str | None = None,
        imports: str = "tests.support.handlers,tests.support.celery_task",
        env: Mapping[str, str] | None = None,
        reached: Callable[[str], Mapping[str, str]] | None = None,
        env_of: Callable[[str, Servers], Mapping[str, str]] | None = None,
        broker: str | None = None,
    ) -> Iterator[Stack]:
        """Start everything, wait until it is ready, and end everything.

        Args:
            directory: For logs, effects and, if they are our own, the servers.
            workers: By name; one on the queue `default` when not given.
            services: Names of the service processes.
            with_api: Start an API process as well, called `api`.
            with_flower: Start Flower as well, called `flower`.
            servers: Use these, with a database of our own; None starts others, which may be restarted and emptied.
            template: A migrated database of these servers to copy, which takes a tenth of migrating one.
            imports: Modules with handlers.
            env: Further settings of all processes.
            reached: Gives, for the URL of the database, settings by which the processes reach it; the test itself
                reaches it straight.
            env_of: Gives, for the name of a process and the servers with their database, settings of that one alone.
            broker: A broker that is not the Redis of the servers: that of another stack, or RabbitMQ.
        """
        workers = {"worker": WorkerSpec()} if workers is None else workers
        directory.mkdir(parents=True, exist_ok=True)
        is_own = servers is None
        servers = embedded.start(directory / "servers", environment={}) if servers is None else servers
        try:
            url = embedded.fresh_database(servers, f"stack_{os.getpid()}_{next(_databases)}", template=template)
            migrate.upgrade(url)
            tcp_url = servers.database_tcp_url
            servers = replace(
                servers, database_url=url, database_tcp_url=tcp_url and with_database(tcp_url, _database_of(url))
            )
            if not is_own:
                servers = _with_own_broker(servers)
            if broker is not None:
                redis_url = broker if is_redis(broker) else servers.redis_url
                servers = replace(servers, broker_url=broker, redis_url=redis_url)
            port = _free_port()
            specs = [
                *(_worker(name, spec) for name, spec in workers.items()),
                *(_service(name) for name in services),
                *([_api(port, asks_for_key="ORCH8_API_KEY" in (env or {}))] if with_api else []),
                *([_flower()] if with_flower else []),
            ]
            if env_of is not None:
                specs = [replace(spec, env=env_of(spec.name, servers)) for spec in specs]
            settings = {
                **os.environ,
                **servers.environment,
                "PYTHONPATH": str(REPOSITORY),
                "ORCHESTRATOR_IMPORT": imports,
                "ORCH8_REQUIRE_TENANT_HEADER": "false",
                effects.PATH_VARIABLE: str(directory / "effects"),
                **(env or {}),
                **(reached(url) if reached else {}),
            }
            with (directory / "all.log").open("w") as log:
                printer = LinePrinter(("dev", *(spec.name for spec in specs)), log, directory=directory, color=False)
                with Supervisor(specs, env=settings, printer=printer, restart=False) as processes:
                    stack = cls(servers, directory, processes, tuple(workers), port)
                    try:
                        stack.make_partitions()
                        stack.wait_ready()
                        yield stack
                    finally:
                        stack.close()
                printer.close()
        finally:
            if is_own:
                embedded.remove(servers.directory)

    def close(self) -> None:
        """Close our own connections; the processes are ended by `running`."""
        self._doorbell.close()
        self.store.close()

    def make_partitions(self) -> None:
        """Create the partitions of the history."""
        with self.store.transaction() as tx:
            upkeep.make_partitions(tx)

    # -- processes -----------------------------------------------------------------------------------------------

    def pid(self, name: str) -> int:
        """Return the pid of a process that must be running."""
        pid = self.processes.pid(name)
        assert pid is not None, f"{name} is down"
        return pid

    def children(self, name: str) -> list[int]:
        """List the processes that a process has forked."""
        return children_of(self.pid(name))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process; a killed one takes its children along, as the end of a container does."""
        self.processes.kill(name, number)
        if number == signal.SIGKILL:
            self._started.pop(name, None)
            self.processes.stop_child(name)

    def kill_child(self, name: str) -> int:
        """Kill one child of a worker, not the worker; returns its pid."""
        pid = self.children(name)[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def has_ended(self, pid: int) -> bool:
        """Tell whether a process has ended, with all of its threads; also one of ours that is not collected yet."""
        if pid in map(self.processes.pid, self.processes.names):
            return False
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    def stop(self, name: str) -> None:
        """End a process in an orderly way, and leave it down."""
        self._started.pop(name, None)
        self.processes.stop_child(name)

    def start(self, name: str) -> None:
        """Start a process that is down, and wait until it is ready."""
        self._launch(name)
        self.wait_ready()

    def start_all(self, within: float = 90.0) -> None:
        """Start what is down, also what ends by itself meanwhile: a worker gives up some time after its broker has."""
        wait_until(self._are_up, lambda: f"all processes to be up\n{self.log_tail()}", within=within)

    def _are_up(self) -> bool:
        for name in self.processes.names:
            if self.processes.pid(name) is None:
                self.processes.stop_child(name)  # one that ended by itself may not have been collected yet
                self._launch(name)
        return not self.processes.wait_ready(0) and self._are_registered()

    def _launch(self, name: str) -> None:
        self._started[name] = self.now()
        self.processes.start_child(name)

    def wait_ready(self, within: float = 90.0) -> None:
        """Wait until every process that should run answers and every worker is registered."""
        wanted = {name for name in self._started if self.processes.pid(name) is not None}
        assert wanted == set(self._started), f"died at start: {set(self._started) - wanted}\n{self.log_tail()}"
        self.processes.wait_ready(within)
        wait_until(self._are_registered, lambda: f"workers to register\n{self.log_tail()}", within=within)

    def _are_registered(self) -> bool:
        try:
            with self.store.transaction() as tx:
                alive = worker_rows.alive(tx, self.settings.dead_after)
        except StoreUnavailable:
            return False
        began = {row["name"].partition("@")[0]: row["started_at"] for row in alive}
        # One that was killed stays listed for a while: only a row as young as the process counts.
        return all(
            name in began and began[name] >= launched
            for name, launched in self._started.items()
            if name in self.workers
        )

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of everybody's log, without Celery's two lines for each hint."""
        written = (self.directory / "all.log").read_text(errors="replace").splitlines()
        return "\n".join([line for line in written if "Task orchestrator.hint" not in line][-lines:])

    # -- servers -------------------------------------------------------------------------------------------------

    def flush_redis(self) -> None:
        """Empty both databases of Redis."""
        redis = Redis.from_url(self.servers.redis_url)
        redis.flushall()
        redis.close()

    def redis_time(self) -> float:
        """Ask Redis what time it is: seconds since 1970."""
        redis = Redis.from_url(self.servers.redis_url)
        seconds, micros = redis.time()
        redis.close()
        return float(seconds) + float(micros) / 1e6

    def restart_redis(self) -> None:
        """Kill Redis and start it empty, on the same port."""
        embedded.restart_redis(self.servers, empty=True)

    def restart_postgres(self) -> None:
        """Drop every connection at once and recover, as after a crash."""
        embedded.restart_postgres(self.servers, immediate=True)

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read from the database."""
        with self.store.transaction() as tx:
            return tx.query(statement, parameters)

    # -- sequences and instances ---------------------------------------------------------------------------------

    def define(self, blocks: Sequence[Mapping[str, Any]], name: str | None = None, **members: Any) -> UUID:
        """Store a sequence; returns its id."""
        return define(self.store, blocks, name or f"s{next(self._names)}", **members)

    def start_instances(self, sequence_id: UUID, count: int = 1, data: Any = None) -> list[UUID]:
        """Start instances through the engine, as a client in Python does."""
        new = NewInstance(
            sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE, profile=Profile(data=data or {})
        )
        return [started.id for started in self.engine.start_many([new] * count)]

    def states(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        """Read the states of instances."""
        with self.store.transaction() as tx:
            return instances.states_of(tx, ids)

    def wait_for_end(self, ids: Sequence[UUID], within: float = 90.0) -> dict[UUID, str]:
        """Wait until all instances have ended; returns their states."""
        return self.wait_for_states(ids, ENDED, within)

    def wait_for_states(self, ids: Sequence[UUID], wanted: frozenset[str], within: float = 90.0) -> dict[UUID, str]:
        """Wait until every instance is in one of the states; returns them."""
        states: dict[UUID, str] = {}

        def have_come() -> bool:
            with suppress(StoreUnavailable):
                states.update(self.states(ids))
            return set(states) == set(ids) and all(state in wanted for state in states.values())

        def what() -> str:
            late = [(str(i), states.get(i)) for i in ids if states.get(i) not in wanted]
            return f"{len(late)} of {len(ids)} instances are not {set(wanted)}: {late[:3]}\n{self.explain(ids)}"

        wait_until(have_come, what, within)
        return states

    def explain(self, ids: Sequence[UUID]) -> str:
        """Describe the open steps of some instances, for failures."""
        rows = self.query(
            "SELECT instance_id::text, block_id, iteration, state, attempt, losses, worker_name, slot, claimed_at, "
            "hinted_at, wake_at, clock_timestamp() FROM steps WHERE instance_id = ANY(%s::uuid[]) LIMIT 10",
            (list(ids),),
        )
        return "\n".join(map(str, rows)) + f"\n{self.log_tail()}"

    def outputs_of(self, instance_id: UUID) -> dict[str, Any]:
        """Read the newest output of each block."""
        with self.store.transaction() as tx:
            return {row[1]: row[2] for row in instances.outputs(tx, instance_id)}

    def now(self) -> datetime:
        """Give the database's time."""
        moment: datetime = self.query("SELECT clock_timestamp()")[0][0]
        return moment


def define(store: Store, blocks: Sequence[Mapping[str, Any]], name: str, **members: Any) -> UUID:
    """Store a sequence; returns its id."""
    document = to_document(
        parse_definition(
            {
                "id": str(uuid4()),
                "tenant_id": TENANT,
                "namespace": NAMESPACE,
                "name": name,
                "version": 1,
                "created_at": datetime.now(UTC).isoformat(),
                "blocks": list(blocks),
                **members,
            }
        )
    )
    stored = definitions.StoredDefinition(
        id=UUID(document["id"]),
        tenant_id=TENANT,
        namespace=NAMESPACE,
        name=name,
        version=1,
        deprecated=False,
        document=document,
        content_hash="",
    )
    with store.transaction() as tx:
        assert definitions.insert(tx, stored)
    return stored.id


def children_of(pid: int) -> list[int]:
    """List the living processes that a process has forked."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (thread / "children").read_text().split()]
    return sorted(found)


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "orchestrator.cli", *arguments)


def _worker(name: str, spec: WorkerSpec) -> ChildSpec:
    argv = _command(
        *("worker", "-Q", ",".join(spec.queues), "-c", str(spec.concurrency), "--name", name, "--pool", spec.pool)
    )
    return ChildSpec(name=name, argv=argv)


def _service(name: str) -> ChildSpec:
    """Until it has said so, it may still have to find its database: without one it does not start."""
    return ChildSpec(name=name, argv=_command("service"), ready_text="service_started")


def _api(port: int, *, asks_for_key: bool) -> ChildSpec:
    argv = _command("api", "--port", str(port), "--insecure-storage" if asks_for_key else "--insecure")
    url = f"http://127.0.0.1:{port}/health/live"
    return ChildSpec(name="api", argv=argv, ready=lambda: answers(url))


def _flower() -> ChildSpec:
    port = _free_port()
    url = f"http://127.0.0.1:{port}/healthcheck"
    return ChildSpec(name="flower", argv=_command("flower", "--port", str(port)), ready=lambda: answers(url))


def _database_of(url: str) -> str:
    return urlsplit(without_driver(url)).path[1:]


def _with_own_broker(servers: Servers) -> Servers:
    """Use a database of Redis that no other stack uses: its workers would take our hints."""
    address = servers.broker_url.rpartition("/")[0]
    url = f"{address}/{2 + next(_brokers) % 14}"
    redis = Redis.from_url(url)
    redis.flushdb()
    redis.close()
    return replace(servers, broker_url=url, redis_url=url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
