"""What is done to an installation. Each kind strikes, waits as long as the fault lasts, and leaves all healed."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from uuid import UUID, uuid4

import psycopg2
from kombu import Connection
from redis import Redis

from orchestrator import embedded
from orchestrator.embedded import without_driver
from orchestrator.errors import StoreUnavailable
from queues.broker import Broker, Hint, client_app
from tests.faults.nightly.deaths import die_at
from tests.faults.nightly.site import SERVICES, SLOTS, TO_API, TO_POSTGRES, TO_RABBITMQ, TO_REDIS, WORKERS, Plan, Site
from tests.faults.stopped import standing_still
from tests.support.points import Point
from tests.support.proxy import Trouble
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import wait_until

PARKED_WITHIN_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long faults last.

    Args:
        pause: Least and most seconds of a fault that just lasts.
        stop: Seconds that a process stands still; above the 6 s after which it counts as dead, it loses its claims.
        outage: Least and most seconds that PostgreSQL is down.
    """

    pause: tuple[float, float]
    stop: tuple[float, float]
    outage: tuple[float, float]


SHORT = Pace(pause=(1.0, 2.0), stop=(1.0, 2.0), outage=(2.0, 3.0))
LONG = Pace(pause=(1.0, 15.0), stop=(2.0, 14.0), outage=(2.0, 60.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault.

    Args:
        group: What it hits.
        strike: Does it, and undoes it.
        may_run_again: Executions that it can cause to be repeated.
    """

    name: str
    group: str
    strike: Callable[[Site, Random, Pace], None]
    may_run_again: int = 0


def _last(seconds: tuple[float, float], random: Random) -> None:
    time.sleep(random.uniform(*seconds))


# -- processes -----------------------------------------------------------------------------------------------------


def _kill_child(site: Site, random: Random, _pace: Pace) -> None:
    worker = random.choice(WORKERS)
    os.kill(random.choice(wait_until(lambda: site.stack.children(worker), "a child")), signal.SIGKILL)


def _stop_child(site: Site, random: Random, pace: Pace) -> None:
    worker = random.choice(WORKERS)
    pid = random.choice(wait_until(lambda: site.stack.children(worker), "a child"))
    with standing_still([pid]):
        _last(pace.stop, random)


def _stop_parent(site: Site, random: Random, pace: Pace) -> None:
    with standing_still([site.stack.pid(random.choice(WORKERS))]):
        _last(pace.stop, random)


def _stop_worker(site: Site, random: Random, pace: Pace) -> None:
    worker = random.choice(WORKERS)
    with standing_still([site.stack.pid(worker), *site.stack.children(worker)]):
        _last(pace.stop, random)


def _end(number: signal.Signals, names: Sequence[str], site: Site, random: Random, _pace: Pace) -> None:
    """Send a signal that ends a process, and start it again once it has ended."""
    name = random.choice(names)
    site.stack.kill(name, number)
    wait_until(lambda: site.stack.processes.pid(name) is None, f"{name} to end after {number.name}", within=60)
    site.stack.start_all()


def _stop_process(names: Sequence[str], site: Site, random: Random, pace: Pace) -> None:
    with standing_still([site.stack.pid(random.choice(names))]):
        _last(pace.stop, random)


# -- Redis ---------------------------------------------------------------------------------------------------------


@contextmanager
def _redis(site: Site) -> Iterator[Redis]:
    redis = Redis.from_url(site.stack.servers.redis_url)
    try:
        yield redis
    finally:
        redis.close()


def _flush(site: Site, _random: Random, _pace: Pace) -> None:
    site.stack.flush_redis()


def _restart_redis(site: Site, _random: Random, _pace: Pace) -> None:
    site.stack.restart_redis()


def _stop_redis(site: Site, random: Random, pace: Pace) -> None:
    with standing_still([site.server_pids()[1]]):
        _last(pace.pause, random)


def _kill_clients(site: Site, _random: Random, _pace: Pace) -> None:
    with _redis(site) as redis:
        redis.client_kill_filter(_type="normal", skipme=True)


def _pause_clients(site: Site, random: Random, pace: Pace) -> None:
    seconds = random.uniform(*pace.pause)
    with _redis(site) as redis:
        redis.client_pause(round(seconds * 1000), all=True)
    time.sleep(seconds)


def _fill_redis(site: Site, random: Random, pace: Pace) -> None:
    with _redis(site) as redis:
        redis.config_set("maxmemory", 1)
        try:
            _last(pace.pause, random)
        finally:
            redis.config_set("maxmemory", 0)


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


def _restart_postgres(site: Site, _random: Random, _pace: Pace) -> None:
    site.stack.restart_postgres()


def _outage(site: Site, random: Random, pace: Pace) -> None:
    postgres_down(site, random.uniform(*pace.outage))


def postgres_down(site: Site, seconds: float) -> None:
    """Have no PostgreSQL for a while, as after a crash of its machine."""
    servers = site.stack.servers
    os.kill(site.server_pids()[0], signal.SIGQUIT)
    try:
        time.sleep(seconds)
    finally:
        embedded.start(servers.directory, environment={})
        embedded.release(servers.directory)


def _exhaust_connections(site: Site, random: Random, pace: Pace) -> None:
    """Take all connections the server has, and cut those of others now and then, so that they need new ones."""
    until = time.monotonic() + random.uniform(*pace.pause)
    with ExitStack() as taken:
        while time.monotonic() < until:
            if not _take_connection(site, taken):
                with suppress(psycopg2.Error, StoreUnavailable):
                    _cut_backends(site, least=1)
                time.sleep(0.05)


def _take_connection(site: Site, taken: ExitStack) -> bool:
    try:
        connection = psycopg2.connect(
            without_driver(str(site.stack.servers.database_tcp_url)), connect_timeout=5, application_name="thief"
        )
    except psycopg2.OperationalError:
        return False
    taken.callback(connection.close)
    return True


def _terminate_backends(site: Site, _random: Random, _pace: Pace) -> None:
    _cut_backends(site, least=1000)


def _cut_backends(site: Site, *, least: int) -> None:
    site.stack.query(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND application_name = 'orchestrator' ORDER BY random() LIMIT %s) found",
        (least,),
    )


def _lock_table(site: Site, random: Random, pace: Pace) -> None:
    """Hold a lock that every writer of steps waits for, past the time that it waits."""
    connection = psycopg2.connect(without_driver(site.stack.servers.database_url))
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '15s'; SET idle_in_transaction_session_timeout = 0")
            cursor.execute("LOCK TABLE steps IN SHARE MODE")
            time.sleep(min(random.uniform(*pace.pause) * 2, 10))
    finally:
        connection.close()


def _hold_snapshot(site: Site, random: Random, pace: Pace) -> None:
    """Keep an old snapshot: nothing that dies meanwhile can be cleaned up."""
    connection = psycopg2.connect(without_driver(site.stack.servers.database_url))
    try:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 0")
            cursor.execute("SELECT count(*) FROM steps")
            _last(pace.pause, random)
    finally:
        connection.close()


# -- hints and poison ----------------------------------------------------------------------------------------------


def _duplicate_hints(site: Site, random: Random, _pace: Pace) -> None:
    """Ring several times for every step there is, for steps of earlier rounds, and for some that never were."""
    now = [row[0] for row in site.stack.query("SELECT id FROM steps LIMIT 2000")]
    targets = now * random.randint(2, 10) + site.old_hints + [uuid4() for _ in range(20)]
    random.shuffle(targets)
    broker = Broker(client_app(site.stack.servers.broker_url, site.stack.store.installation()))
    try:
        broker.publish(
            tuple(
                Hint(step_id=each, attempt=random.randint(0, 2), queue="default", hint_id=uuid4()) for each in targets
            )
        )
    finally:
        broker.close()
    site.old_hints = now[:200]


def _poison(handler: str, site: Site, _random: Random, _pace: Pace) -> None:
    """Run a step that kills whoever runs it: it is put aside, with the reason, after three deaths."""
    sequence_id = site.stack.define([{"type": "step", "id": "poison", "handler": handler}], f"poison-{uuid4()}")
    [instance_id] = site.stack.start_instances(sequence_id)
    wait_until(lambda: parked_reason(site, instance_id), f"poison {handler} to be parked", within=PARKED_WITHIN_SECONDS)
    losses = site.stack.query(
        "SELECT count(*) FROM attempts WHERE instance_id = %s AND outcome = 'lost'", (instance_id,)
    )[0][0]
    assert losses == 3, f"parked after {losses} losses"


def parked_reason(site: Site, instance_id: UUID) -> str | None:
    """Say why an instance was parked; None if it is not."""
    [[state, reason]] = site.stack.query("SELECT state, parked_reason FROM instances WHERE id = %s", (instance_id,))
    return reason if state == "paused" else None


# -- networks ------------------------------------------------------------------------------------------------------


def _network(link: str, trouble: Trouble, site: Site, random: Random, pace: Pace) -> None:
    with site.links[link].troubled(trouble):
        _last(pace.pause, random)


# -- RabbitMQ and PgBouncer ----------------------------------------------------------------------------------------


def _rabbitmq(site: Site) -> RabbitMQ:
    assert site.rabbitmq is not None
    return site.rabbitmq


def _restart_rabbitmq(site: Site, _random: Random, _pace: Pace) -> None:
    _rabbitmq(site).kill()
    _rabbitmq(site).start()


def _restart_rabbitmq_empty(site: Site, _random: Random, _pace: Pace) -> None:
    _rabbitmq(site).restart_empty()


def _stop_rabbitmq(site: Site, random: Random, pace: Pace) -> None:
    _rabbitmq(site).send_signal(signal.SIGSTOP)
    try:
        _last(pace.pause, random)
    finally:
        _rabbitmq(site).send_signal(signal.SIGCONT)


def _delete_queue(site: Site, _random: Random, _pace: Pace) -> None:
    with Connection(_rabbitmq(site).url) as connection, connection.channel() as channel:
        channel.queue_delete("default")


def _restart_pooler(site: Site, _random: Random, _pace: Pace) -> None:
    assert site.pooler is not None
    site.pooler.kill()
    site.pooler.start()


def _stop_pooler(site: Site, random: Random, pace: Pace) -> None:
    assert site.pooler is not None
    with standing_still([site.pooler.pid]):
        _last(pace.pause, random)


KINDS: tuple[Kind, ...] = (
    Kind(name="kill -9 of a child", group="worker", strike=_kill_child, may_run_again=1),
    Kind(name="kill -9 of a worker", group="worker", strike=partial(_end, signal.SIGKILL, WORKERS), may_run_again=2),
    Kind(name="TERM to a worker", group="worker", strike=partial(_end, signal.SIGTERM, WORKERS)),
    Kind(name="QUIT to a worker", group="worker", strike=partial(_end, signal.SIGQUIT, WORKERS), may_run_again=2),
    Kind(name="SIGSTOP of a child", group="worker", strike=_stop_child, may_run_again=1),
    Kind(name="SIGSTOP of a worker's parent", group="worker", strike=_stop_parent, may_run_again=2),
    Kind(name="SIGSTOP of a whole worker", group="worker", strike=_stop_worker, may_run_again=2),
    Kind(name="kill -9 of a service", group="service", strike=partial(_end, signal.SIGKILL, SERVICES)),
    Kind(name="TERM to a service", group="service", strike=partial(_end, signal.SIGTERM, SERVICES)),
    Kind(name="SIGSTOP of a service", group="service", strike=partial(_stop_process, SERVICES)),
    Kind(name="kill -9 of the API", group="API", strike=partial(_end, signal.SIGKILL, ("api",))),
    Kind(name="TERM to the API", group="API", strike=partial(_end, signal.SIGTERM, ("api",))),
    Kind(name="SIGSTOP of the API", group="API", strike=partial(_stop_process, ("api",))),
    Kind(name="FLUSHALL", group="Redis", strike=_flush),
    Kind(name="Redis restarted empty", group="Redis", strike=_restart_redis),
    Kind(name="SIGSTOP of Redis", group="Redis", strike=_stop_redis),
    Kind(name="CLIENT KILL", group="Redis", strike=_kill_clients),
    Kind(name="CLIENT PAUSE", group="Redis", strike=_pause_clients),
    Kind(name="memory of Redis full", group="Redis", strike=_fill_redis),
    Kind(name="PostgreSQL restarted at once", group="PostgreSQL", strike=_restart_postgres, may_run_again=SLOTS),
    Kind(name="PostgreSQL down", group="PostgreSQL", strike=_outage, may_run_again=SLOTS),
    Kind(name="connections exhausted", group="PostgreSQL", strike=_exhaust_connections),
    Kind(name="backends terminated", group="PostgreSQL", strike=_terminate_backends),
    Kind(name="a table locked", group="PostgreSQL", strike=_lock_table),
    Kind(name="a snapshot held", group="PostgreSQL", strike=_hold_snapshot),
    Kind(name="hints repeated", group="hints", strike=_duplicate_hints),
    Kind(name="poison: os._exit", group="poison", strike=partial(_poison, "exits"), may_run_again=3),
    Kind(name="poison: segmentation fault", group="poison", strike=partial(_poison, "crashes"), may_run_again=3),
)

POINT_KINDS: tuple[Kind, ...] = tuple(
    Kind(
        name=f"kill -9 {point}",
        group="points",
        strike=lambda site, _random, _pace, point=point: die_at(site, point),
        may_run_again=SLOTS,
    )
    for point in Point
)
"""A death of each kind of process in the middle of what it does. Any step that was in progress may run again."""

RABBITMQ_KINDS: tuple[Kind, ...] = (
    Kind(name="kill -9 of RabbitMQ", group="RabbitMQ", strike=_restart_rabbitmq),
    Kind(name="RabbitMQ restarted empty", group="RabbitMQ", strike=_restart_rabbitmq_empty),
    Kind(name="SIGSTOP of RabbitMQ", group="RabbitMQ", strike=_stop_rabbitmq),
    Kind(name="a queue deleted", group="RabbitMQ", strike=_delete_queue),
)

POOLER_KINDS: tuple[Kind, ...] = (
    Kind(name="kill -9 of PgBouncer", group="PgBouncer", strike=_restart_pooler, may_run_again=SLOTS),
    Kind(name="SIGSTOP of PgBouncer", group="PgBouncer", strike=_stop_pooler, may_run_again=SLOTS),
)


def kinds_of(plan: Plan) -> tuple[Kind, ...]:
    """Give the faults that can hit an installation."""
    links = {TO_POSTGRES: SLOTS, TO_RABBITMQ if plan.rabbitmq else TO_REDIS: 0, TO_API: 0}
    networks = [
        Kind(
            name=f"{trouble}: {link}",
            group=f"network {link}",
            strike=partial(_network, link, trouble),
            may_run_again=may_run_again,
        )
        for link, may_run_again in links.items()
        for trouble in Trouble
    ]
    return (
        *KINDS,
        *POINT_KINDS,
        *(RABBITMQ_KINDS if plan.rabbitmq else ()),
        *(POOLER_KINDS if plan.pooler else ()),
        *networks,
    )


def groups_of(kinds: Iterable[Kind]) -> tuple[str, ...]:
    """Name the groups of some kinds."""
    return tuple(dict.fromkeys(kind.group for kind in kinds))


def draw(random: Random, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Draw the faults of a round: mostly one, sometimes several in a row."""
    return tuple(random.choice(kinds) for _ in range(random.choice((1, 1, 1, 2, 4))))


def one_of_each_group(random: Random, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Draw one fault of each group, in any order."""
    drawn = [random.choice([kind for kind in kinds if kind.group == group]) for group in groups_of(kinds)]
    random.shuffle(drawn)
    return tuple(drawn)
