"""The examination of a whole installation."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from orchestrator.dispatcher import EPOCH_FACT
from orchestrator.doctor import database, door, rabbit
from orchestrator.doctor.hints import Hints
from orchestrator.doctor.words import age_of
from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.findings import Finding, error, warning
from orchestrator.reconciler import HEARTBEAT_FACT
from orchestrator.settings import Settings
from orchestrator.store import examination, installation, migrate, row_security, workers
from orchestrator.store.examination import CannotLook
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.row_security import RowSecurityMode
from orchestrator.store.session import Transaction
from queues.addresses import is_rabbitmq, is_redis

LOOPS_FRESH = timedelta(seconds=15)
UNSERVED_AFTER = timedelta(seconds=15)
"""A worker that starts needs some seconds to sign on."""
DEEP, LONG_WAIT = 10_000, timedelta(minutes=5)
LOST_HINTS = 3
LATE = timedelta(seconds=30)

Look = Callable[[Transaction], Iterable[Finding]]


def examine(settings: Settings, api_url: str | None = None) -> list[Finding]:
    """Look at everything; what cannot be looked at, because something under it is missing, is left out.

    Args:
        api_url: Address of an API to look at as well; None for none.
    """
    facts: dict[str, str | None] = {}
    served: set[str] = set()
    found = [*_database(settings, facts, served)]
    broker = settings.celery_broker_url
    if is_redis(broker):
        name = settings.installation or facts.get(installation.ID)
        found += Hints(broker).examine(name, facts.get(EPOCH_FACT))
    elif is_rabbitmq(broker):
        found += rabbit.examine(broker, sorted(served))
    return found if api_url is None else [*found, *door.examine(api_url)]


def _database(settings: Settings, facts: dict[str, str | None], served: set[str]) -> Iterator[Finding]:
    """Look at the database; keeps what others need of it: `facts`, and the queues that workers serve."""
    try:
        stands_at = migrate.current(settings.database_url)
    except StoreUnavailable as problem:
        yield database.unreachable(str(problem))
        return
    except ConfigurationError as problem:
        yield error("postgres_address", str(problem), "correct DATABASE_URL")
        return
    store = PostgresStore(settings.database_url, pooler=settings.database_pooler, vault=settings.vault)
    looks: list[Look] = [database.about_server, database.about_sessions, database.about_disk]
    if stands_at == migrate.head():
        looks += [
            database.about_tables,
            _row_security(settings),
            _key(settings, facts),
            _loops,
            _partitions,
            _late,
            _work(settings),
            _parked,
        ]
        looks.append(_queues_served(settings, served))
    else:
        what = f"the database stands at migration {stands_at}, this version needs {migrate.head()}"
        yield error("schema", what, "run `orchestrator migrate`; if the database is newer, run the newer version")
    try:
        for look in looks:
            yield from _seen(store, look)
    except ConfigurationError as problem:
        yield error("pooler", str(problem), "set DATABASE_POOLER=transaction, or connect to PostgreSQL itself")
    except StoreUnavailable as problem:
        yield database.unreachable(str(problem))
    finally:
        store.close()


def _seen(store: PostgresStore, look: Look) -> list[Finding]:
    """Look in a transaction of its own: one look that cannot be had spoils no other."""
    found: list[Finding] = []
    try:
        with store.transaction() as tx:
            found += look(tx)
    except CannotLook as problem:
        found.append(warning("not_seen", f"a part could not be looked at: {problem}", "ask again; see what is locked"))
    return found


def _key(settings: Settings, facts: dict[str, str | None]) -> Look:
    """Look whether this process could read what is sealed; keeps the facts that others need."""

    def look(tx: Transaction) -> Iterator[Finding]:
        names = (installation.ID, EPOCH_FACT, installation.KEY)
        facts.update({name: installation.read(tx, name) for name in names})
        key = facts[installation.KEY]
        if key is not None and (settings.vault is None or not settings.vault.knows(key)):
            remedy = "set ORCH8_ENCRYPTION_KEY (and ORCH8_OLD_ENCRYPTION_KEY) as the other processes have them"
            yield warning("encryption_key", "the database is sealed with a key that is not set here", remedy)

    return look


def _queues_served(settings: Settings, served: set[str]) -> Look:
    """Find nothing; keep the names of the queues that workers serve."""

    def look(tx: Transaction) -> tuple[Finding, ...]:
        served.update(queue for worker in workers.alive(tx, settings.dead_after) for queue in worker["queues"])
        return ()

    return look


def _row_security(settings: Settings) -> Look:
    """Look whether tenants are read for in a role that sees no other tenant's rows."""

    def look(tx: Transaction) -> Iterator[Finding]:
        if settings.row_security is RowSecurityMode.OFF:
            return
        fault = row_security.fault(tx.query, settings.tenant_role)
        if fault is not None:
            found = error if settings.row_security is RowSecurityMode.REQUIRED else warning
            remedy = row_security.remedy(settings.tenant_role)
            yield found("row_security", f"row-level security is not used: {fault}", remedy)

    return look


def _loops(tx: Transaction) -> Iterator[Finding]:
    heartbeat = installation.read(tx, HEARTBEAT_FACT)
    if heartbeat is None or tx.now() - datetime.fromisoformat(heartbeat) > LOOPS_FRESH:
        what = "no service loops have left a heartbeat lately: nothing fires timers or finds lost work"
        yield error("no_loops", what, "run `orchestrator service` or `orchestrator server`")


def _partitions(tx: Transaction) -> Iterator[Finding]:
    if not examination.has_week(tx, 1):
        what = "the history has no partition for the coming week: its rows will be hard to remove"
        yield warning("no_partition", what, "see that service loops run, and what their log says of partitions")


def _late(tx: Transaction) -> Iterator[Finding]:
    more = "run more service processes; read their log"
    if late := examination.overdue(tx, LATE):
        yield warning("late_timers", f"{late} timers are late by half a minute and more", more)
    if late := examination.overdue_letters(tx, LATE):
        yield warning("late_letters", f"{late} letters between instances are late by half a minute and more", more)
    if late := examination.overdue_schedules(tx, LATE):
        yield warning("late_schedules", f"{late} cron schedules are late by half a minute and more", more)
    if late := examination.overdue_pushes(tx, LATE):
        what = f"{late} tasks should have been pushed half a minute ago and more"
        yield warning("late_pushes", what, f"see that their addresses answer; {more}")
    for each in examination.webhooks(tx, LATE):
        if each["late"]:
            what = f"{each['late']} events for {each['url']} are late by half a minute and more"
            yield warning("late_webhooks", what, f"see that it answers, and that ORCH8_WEBHOOK_URLS names it; {more}")
        if each["parked"]:
            what = f"{each['parked']} events for {each['url']} were given up: {each['error']}"
            yield warning("parked_webhooks", what, "mend the address, then `orchestrator webhooks retry`")


def _parked(tx: Transaction) -> Iterator[Finding]:
    count, newest = examination.parked(tx)
    if newest is not None:
        what = f"{count} instances were put aside, the last one, {newest['instance']}, because: {newest['reason']}"
        yield warning("parked", what, "remove the cause, then resume them; `orchestrator doctor ID` tells more of one")


def _work(settings: Settings) -> Look:
    return partial(_about_work, settings)


def _about_work(settings: Settings, tx: Transaction) -> Iterator[Finding]:
    for each in examination.silent_workers(tx, settings.dead_after):
        what = (
            f"worker {each['name']!r} has not been heard of for {age_of(each['age'])} and holds {each['claims']} steps"
        )
        remedy = "start it again, or end it (kill -9) if it stands still; others do its steps meanwhile"
        yield warning("silent_worker", what, remedy)
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
        what = f"step {each['block']!r} of {each['instance']} was claimed by {each['worker']} {age_of(each['age'])} ago"
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
        what = f"{count} steps wait on queue {queue!r}, the oldest for {age_of(age)}"
        yield warning("deep_queue", what, f"start more workers: orchestrator worker -Q {queue}")
    hints = max(each["hints"] for each in waiting)
    if hints >= LOST_HINTS:
        what = f"a step on queue {queue!r} was hinted {hints} times, and no worker claims it"
        yield warning(
            "lost_hints", what, "see that workers and loops use the same broker, and that workers are not stuck"
        )
