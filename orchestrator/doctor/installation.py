"""The examination of a whole installation."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.exceptions import RedisError

from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.findings import Finding, error, note, warning
from orchestrator.reconciler import HEARTBEAT_FACT
from orchestrator.settings import Settings
from orchestrator.store import examination, installation, migrate, workers
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Transaction
from queues.connection import connect

LONG_TRANSACTION = timedelta(minutes=1)
"""Ours end after 15 s; longer ones keep dead rows of the hot tables alive."""
DEAD_ROWS = 50_000
CLOCK_SECONDS = 2.0
LOOPS_FRESH = timedelta(seconds=15)
UNSERVED_AFTER = timedelta(seconds=15)
"""A worker that starts needs some seconds to sign on."""
DEEP, LONG_WAIT = 10_000, timedelta(minutes=5)
LOST_HINTS = 3
LATE = timedelta(seconds=30)
FULL = 0.9


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; what cannot be looked at, because something under it is missing, is left out."""
    return [*_database(settings), *_redis(settings)]


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        stands_at = migrate.current(settings.database_url)
    except StoreUnavailable as problem:
        yield error("postgres_unreachable", str(problem), "start PostgreSQL, or correct DATABASE_URL")
        return
    except ConfigurationError as problem:
        yield error("postgres_address", str(problem), "correct DATABASE_URL")
        return
    if stands_at != migrate.head():
        what = f"the database stands at migration {stands_at}, this version needs {migrate.head()}"
        yield error("schema", what, "run `orchestrator migrate`; if the database is newer, run the newer version")
        return
    store = PostgresStore(settings.database_url, pooler=settings.database_pooler, vault=settings.vault)
    try:
        with store.transaction() as tx:
            yield from _server(tx)
            yield from _loops(tx)
            yield from _work(tx, settings)
    except ConfigurationError as problem:
        yield error("pooler", str(problem), "set DATABASE_POOLER=transaction, or connect to PostgreSQL itself")
    except StoreUnavailable as problem:
        yield error("postgres_unreachable", str(problem), "look at the log of PostgreSQL")
    finally:
        store.close()


def _server(tx: Transaction) -> Iterator[Finding]:
    asked = datetime.now(UTC)
    found = examination.server(tx)
    answered = datetime.now(UTC)
    if found["is_read_only"]:
        yield error("read_only", "PostgreSQL takes no writes", "name the primary in DATABASE_URL; look for a full disk")
    if found["connections"] > FULL * found["max_connections"]:
        what = f"{found['connections']} of {found['max_connections']} connections are in use"
        yield warning("connections", what, "raise max_connections, or put PgBouncer in between")
    ahead = max((found["now"] - answered).total_seconds(), (asked - found["now"]).total_seconds())
    if ahead > CLOCK_SECONDS:
        what = f"the clocks of this machine and of PostgreSQL differ by {ahead:.1f} s"
        yield warning("clock", what, "let both follow one time server (NTP)")
    for each in examination.long_transactions(tx, LONG_TRANSACTION):
        what = f"process {each['pid']} ({each['application']}) has had a transaction open for {_age(each['age'])}"
        yield warning("long_transaction", what, f"end it: SELECT pg_terminate_backend({each['pid']})")
    for each in examination.bloated_tables(tx, DEAD_ROWS):
        what = f"table {each['table']} has {each['dead']} dead rows and {each['live']} living ones"
        yield warning("dead_rows", what, f"VACUUM {each['table']}; look for what keeps autovacuum from it")


def _loops(tx: Transaction) -> Iterator[Finding]:
    heartbeat = installation.read(tx, HEARTBEAT_FACT)
    if heartbeat is None or tx.now() - datetime.fromisoformat(heartbeat) > LOOPS_FRESH:
        what = "no service loops have left a heartbeat lately: nothing fires timers or finds lost work"
        yield error("no_loops", what, "run `orchestrator service` or `orchestrator server`")
    if late := examination.overdue(tx, LATE):
        yield warning("late_timers", f"{late} timers are late by half a minute and more", "run more service processes")


def _work(tx: Transaction, settings: Settings) -> Iterator[Finding]:
    alive = workers.alive(tx, settings.dead_after)
    served = {queue for worker in alive for queue in worker["queues"]}
    handlers = {name for worker in alive for name in worker["handlers"]}
    waiting = examination.backlog(tx)
    for queue in sorted({each["queue"] for each in waiting}):
        yield from _queue(queue, [each for each in waiting if each["queue"] == queue], served)
    for each in waiting:
        if each["handler"] not in handlers and each["age"] > UNSERVED_AFTER:
            what = (
                f"{each['count']} steps on {each['queue']!r} wait for {each['handler']!r}, which no worker here knows"
            )
            remedy = "import its module in a worker (--import), or see that an external worker polls for it"
            yield warning("unknown_handler", what, remedy)
    for each in examination.stuck_claims(tx, 2 * settings.dead_after, LATE):
        what = f"step {each['block']!r} of {each['instance']} was claimed by {each['worker']} {_age(each['age'])} ago"
        yield error("stuck_claim", f"{what}, and nobody works on it", "see that service loops run; read their log")


def _queue(queue: str, waiting: list[dict[str, Any]], served: set[str]) -> Iterator[Finding]:
    count = sum(each["count"] for each in waiting)
    age = max(each["age"] for each in waiting)
    if queue not in served:
        if age > UNSERVED_AFTER:
            what = f"{count} steps wait on queue {queue!r}, and no worker of ours serves it"
            yield error("queue_without_worker", what, f"start one: orchestrator worker -Q {queue}")
        return
    if count > DEEP or age > LONG_WAIT:
        what = f"{count} steps wait on queue {queue!r}, the oldest for {_age(age)}"
        yield warning("deep_queue", what, f"start more workers: orchestrator worker -Q {queue}")
    hints = max(each["hints"] for each in waiting)
    if hints >= LOST_HINTS:
        what = f"a step on queue {queue!r} was hinted {hints} times, and no worker claims it"
        yield warning(
            "lost_hints", what, "see that workers and loops use the same broker, and that workers are not stuck"
        )


def _redis(settings: Settings) -> Iterator[Finding]:
    redis = connect(settings.home_of_hints)
    try:
        about: dict[str, Any] = redis.info()
    except (RedisError, OSError) as problem:
        yield error("redis_unreachable", f"Redis does not answer: {problem}", "start Redis, or correct REDIS_URL")
        return
    finally:
        redis.close()
    if about.get("maxmemory") and about.get("maxmemory_policy") != "noeviction":
        what = f"Redis evicts keys when it is full ({about['maxmemory_policy']}): hints would disappear"
        yield warning("eviction", what, "CONFIG SET maxmemory-policy noeviction")
    if about.get("maxmemory") and about["used_memory"] > FULL * about["maxmemory"]:
        what = f"Redis uses {about['used_memory']} of {about['maxmemory']} bytes"
        yield error("redis_full", what, "raise maxmemory; look for what else is kept there")
    if not about.get("aof_enabled"):
        what = "Redis does not append to a file: after a restart all hints are sent anew"
        yield note("no_aof", what, "CONFIG SET appendonly yes, if restarts should cost no time")


def _age(age: timedelta) -> str:
    """Write a duration in whole seconds.

    >>> _age(timedelta(seconds=61.5))
    '0:01:01'
    """
    return str(timedelta(seconds=int(age.total_seconds())))
