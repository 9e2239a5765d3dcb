"""What is struck: servers, workers, services, an API, clients, and the links between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from orchestrator import embedded
from orchestrator.core.model import Claim
from orchestrator.embedded import Servers, without_driver
from orchestrator.errors import StoreUnavailable
from orchestrator.store import leases
from tests.faults.journey import BLOCKS
from tests.faults.nightly.judge import GRACE_SECONDS
from tests.faults.nightly.load import Load
from tests.faults.nightly.pulse import Pulse
from tests.support.effects import EffectLog, Execution, executions_of
from tests.support.pgbouncer import PgBouncer, pooling
from tests.support.points import prepared_to_die
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ, broking
from tests.support.stack import Stack, WorkerSpec

WORKERS = ("worker-1", "worker-2")
SERVICES = ("service-1", "service-2")
CHILDREN = 2
"""Of each worker."""
SLOTS = CHILDREN * len(WORKERS)
"""Processes that can have steps in progress."""
TO_POSTGRES, TO_REDIS, TO_RABBITMQ, TO_API = "worker-PostgreSQL", "worker-Redis", "worker-RabbitMQ", "client-API"
POOLED_SESSIONS = 6
"""Fewer than the processes have connections: their transactions take turns in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an installation stands on, beside PostgreSQL and Redis.

    Args:
        rabbitmq: Hints go through RabbitMQ.
        pooler: Every process reaches PostgreSQL through PgBouncer in transaction mode.
    """

    rabbitmq: bool = False
    pooler: bool = False


class Site:
    """A running installation under load; made by `running`."""

    def __init__(
        self,
        stack: Stack,
        links: Mapping[str, Proxy],
        load: Load,
        *,
        points: Path,
        rabbitmq: RabbitMQ | None = None,
        pooler: PgBouncer | None = None,
    ) -> None:
        self.stack = stack
        self.links = links
        self.load = load
        self.points = points
        """Where processes are asked to die."""
        self.rabbitmq = rabbitmq
        self.pooler = pooler
        self.effects = Tail(stack.effects)
        self.pulse = Pulse(stack.query, children=CHILDREN, grace=GRACE_SECONDS)
        self.old_hints: list[UUID] = []
        """Steps of earlier rounds: a hint for one of them is late."""

    @classmethod
    @contextmanager
    def running(cls, directory: Path, *, per_second: float, seed: int, plan: Plan | None = None) -> Iterator[Site]:
        """Start everything, with servers of its own; `per_second` instances are started."""
        plan = plan or Plan()
        with ExitStack() as parts:
            rabbitmq = parts.enter_context(broking(directory / "rabbitmq")) if plan.rabbitmq else None
            ways = _Ways(seed, rabbitmq, directory / "pooler" if plan.pooler else None, parts)
            points = directory / "points"
            points.mkdir()
            stack = parts.enter_context(
                Stack.running(
                    directory,
                    workers={name: WorkerSpec(concurrency=CHILDREN) for name in WORKERS},
                    services=SERVICES,
                    with_api=True,
                    env=prepared_to_die(points),
                    env_of=ways.settings_of,
                    broker=rabbitmq.url if rabbitmq else None,
                )
            )
            link = ways.link(TO_API, _port(stack.api_url))
            load = Load(
                [f"http://127.0.0.1:{link.port}"],
                stack.define(BLOCKS),
                per_second=per_second,
                count_open=lambda: _count_open(stack),
            )
            load.start()
            parts.callback(load.stop)
            site = cls(stack, ways.links, load, points=points, rabbitmq=rabbitmq, pooler=ways.pooler)
            site.pulse.start()
            parts.callback(site.pulse.stop)
            yield site

    def mend(self) -> None:
        """Heal the links, and start what is down."""
        for link in self.links.values():
            link.heal()
        self.stack.start_all()

    def down(self) -> list[str]:
        """Name the processes that have ended; what a fault ends it starts again itself."""
        return [name for name in self.stack.processes.names if self.stack.processes.pid(name) is None]

    def server_pids(self) -> tuple[int, int]:
        """Give the processes of PostgreSQL and of Redis as they are now."""
        found = embedded.status(self.stack.servers.directory, environment={})
        assert found is not None
        assert found.postgres_pid is not None
        assert found.redis_pid is not None
        return found.postgres_pid, found.redis_pid

    def claims(self) -> list[Claim]:
        """List the claims of all workers."""
        with self.stack.store.transaction() as tx:
            ids = [row[0] for row in tx.query("SELECT id FROM workers")]
            return [claim for worker_id in ids for claim in leases.claims_of(tx, worker_id)]

    def has_waiting_steps(self) -> bool:
        """Tell whether a step could be claimed."""
        return self.stack.query("SELECT EXISTS (SELECT FROM steps WHERE state = 'ready')") == [(True,)]

    def ended_badly(self, claims: Sequence[Claim]) -> list[Claim]:
        """Give those of the claims that were taken away: their outcome was not committed, and cannot be any more."""
        with self.stack.store.transaction() as tx:
            held = {row[0] for row in tx.query("SELECT token FROM steps WHERE state = 'claimed'")}
            return [claim for claim in claims if claim.token not in held and not leases.has_committed(tx, claim)]

    def completed_after(self, moment: float, ids: Sequence[UUID]) -> float | None:
        """Say when the first step of some instances was completed after a moment (seconds since 1970)."""
        try:
            [[first]] = self.stack.query(
                "SELECT extract(epoch FROM min(ended_at))::float8 FROM attempts WHERE instance_id = ANY(%s::uuid[]) "
                "AND outcome = 'completed' AND ended_at > to_timestamp(%s)",
                (list(ids), moment),
            )
        except StoreUnavailable:
            return None
        return None if first is None else float(first)


class _Ways:
    """How the processes of a site reach the servers: workers through links that can be troubled."""

    def __init__(self, seed: int, rabbitmq: RabbitMQ | None, pooler: Path | None, parts: ExitStack) -> None:
        self._seed = seed
        self._rabbitmq = rabbitmq
        self._pooler_directory = pooler
        self._parts = parts
        self.pooler: PgBouncer | None = None
        self.links: dict[str, Proxy] = {}

    def settings_of(self, name: str, servers: Servers) -> Mapping[str, str]:
        """Give the settings of one process."""
        settings = {}
        database = str(servers.database_tcp_url)
        if self._pooler_directory is not None:
            if self.pooler is None:
                self.pooler = self._parts.enter_context(
                    pooling(self._pooler_directory, database, sessions=POOLED_SESSIONS)
                )
            database = self.pooler.url_of(database)
            settings = {"DATABASE_URL": database, "DATABASE_POOLER": "transaction"}
        if name not in WORKERS:
            return settings
        settings["DATABASE_URL"] = _through(database, self.link(TO_POSTGRES, _port(database)).port)
        redis = self.link(TO_REDIS, _port(servers.redis_url)).port
        settings["REDIS_URL"] = _through(servers.redis_url, redis)
        if self._rabbitmq is None:
            settings["BROKER_URL"] = _through(servers.broker_url, redis)
        else:
            link = self.link(TO_RABBITMQ, self._rabbitmq.port)
            settings["BROKER_URL"] = self._rabbitmq.url_through(link.port)
        return settings

    def link(self, name: str, port: int) -> Proxy:
        """Give a link to a port; the same for the same name."""
        if name not in self.links:
            self.links[name] = Proxy(port, self._seed)
            self._parts.callback(self.links[name].close)
        return self.links[name]


class Tail:
    """Reads on in the file of the effects, and forgets what was asked for."""

    def __init__(self, log: EffectLog) -> None:
        self._log = log
        self._offset = 0
        self._lines: dict[str, list[dict[str, Any]]] = {}
        self._owners: dict[str, str] = {}

    def of(self, ids: Sequence[UUID]) -> tuple[Execution, ...]:
        """Give the executions of some instances so far."""
        self._read_on()
        return executions_of(line for instance_id in ids for line in self._lines.get(str(instance_id), ()))

    def forget(self, ids: Sequence[UUID]) -> None:
        """Forget instances that have been judged."""
        for instance_id in ids:
            for line in self._lines.pop(str(instance_id), ()):
                self._owners.pop(line["nonce"], None)

    def _read_on(self) -> None:
        if not self._log.path.exists():
            return
        with self._log.path.open("rb") as file:
            file.seek(self._offset)
            for written in file:
                if not written.endswith(b"\n"):
                    break
                self._offset += len(written)
                line = json.loads(written)
                if line["phase"] == "began":
                    self._owners[line["nonce"]] = line["key"].partition(":")[0]
                if (owner := self._owners.get(line["nonce"])) is not None:
                    self._lines.setdefault(owner, []).append(line)


def _count_open(stack: Stack) -> int | None:
    try:
        [[count]] = stack.query("SELECT count(DISTINCT instance_id) FROM steps")
    except StoreUnavailable:
        return None
    return int(count)


def _port(url: str) -> int:
    port = urlsplit(without_driver(url)).port
    assert port is not None
    return port


def _through(url: str, port: int) -> str:
    return url.replace(f":{_port(url)}/", f":{port}/")
