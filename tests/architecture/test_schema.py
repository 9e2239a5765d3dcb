"""The migrations build what `store/tables/` says, and the queries that must not scan do not."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table, create_engine, text
from sqlalchemy.engine import make_url

from orchestrator.core.model import OutputKey
from orchestrator.core.slice import Needs, Slice
from orchestrator.embedded import Servers
from orchestrator.store import (
    api_keys,
    apply,
    breakers,
    change_feed,
    claiming,
    creations,
    credentials,
    definitions,
    dispatch,
    hints,
    instances,
    leases,
    letters,
    listing,
    nonces,
    reading,
    removal,
    schedules,
    tables,
    task_events,
    tasks,
    timers,
    usage,
    webhooks,
    worker_orders,
)
from orchestrator.store.claiming import Worker
from orchestrator.store.prepared import Form, Prepared, texts_of
from orchestrator.store.session import Store, Transaction
from tests.support.databases import copied

INSTANCE = UUID(int=1)
PUSH_QUEUE = dispatch.DispatchConfig(
    tenant_id="t",
    queue_name="q",
    mode="push",
    push_url="http://example.com",
    secret=None,
    second_secret=None,
    sync=False,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
WORKER = Worker(id=UUID(int=2), name="worker", slot=1)


@pytest.fixture(scope="module")
def schema(servers: Servers, migrated_template: str) -> Iterator[str]:
    """A database of this file's own, in which nothing is written."""
    with copied(servers, f"schema_{os.getpid()}", migrated_template) as url:
        yield url


@pytest.fixture
def database_url(schema: str) -> str:
    return schema


@contextmanager
def _connected(store: Store) -> Iterator[Connection]:
    """Reach the database of a store through SQLAlchemy, which compares schemas."""
    engine = create_engine(make_url(store.url).set(drivername="postgresql+psycopg2"))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def test_the_migrations_build_the_tables(store: Store) -> None:
    with _connected(store) as connection:
        children = set(connection.execute(text("SELECT inhrelid::regclass::text FROM pg_inherits")).scalars())

        def is_ours(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
            del reflected, other
            table = name if kind == "table" else getattr(getattr(thing, "table", None), "name", None)
            return table not in children and table != "alembic_version"

        options = {"compare_type": True, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []


def test_a_column_that_no_migration_makes_would_be_noticed(store: Store) -> None:
    with _connected(store) as connection:
        connection.execute(text("ALTER TABLE items DROP COLUMN item"))
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        wanted = tables.metadata.tables["items"]
        differences = [d for d in compare_metadata(context, tables.metadata) if isinstance(d, tuple)]
        assert any(d[0] == "add_column" and d[2] == wanted.name for d in differences)
        connection.rollback()


def test_every_table_is_removed_with_its_instance_or_outlives_it() -> None:
    named = {table.name for table in tables.metadata.tables.values() if "instance_id" in table.columns}
    assert set(removal.OF_INSTANCES) == named - {"usage_events", "webhook_outbox", "webhook_attempts"}


def test_every_index_says_or_shows_whom_it_serves() -> None:
    for table in tables.metadata.tables.values():
        assert isinstance(table, Table)
        for index in table.indexes:
            assert index.name in INDEXED, f"name the query that uses {index.name!r}, or drop it"


class Explaining:
    """A transaction that plans each statement instead of running it, and answers that there is nothing."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.plans: list[str] = []

    def query(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        self.plans.append("\n".join(row[0] for row in self._tx.query("EXPLAIN " + statement, parameters)))
        return []

    def execute(self, statement: str, parameters: Any = None) -> int:
        self.query(statement, parameters)
        return 0

    def ask(self, form: Form, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        texts = texts_of(values)
        return self.query(form.whole, {str(number): text for number, text in enumerate(texts, 1)})

    def tell(self, form: Form, values: Sequence[Any]) -> None:
        self.ask(form, values)

    def values(self, template: str, rows: Any) -> str:
        return self._tx.values(template, rows)


@pytest.fixture
def explaining(store: Store) -> Iterator[Explaining]:
    """A planner that must use an index where there is one for the query; the tables are empty."""
    with store.transaction() as tx:
        tx.execute("SET LOCAL enable_seqscan = off")
        tx.execute("SET LOCAL enable_bitmapscan = off")
        yield Explaining(tx)


def _slice() -> Slice:
    plan: Any = None
    instance: Any = SimpleNamespace(id=INSTANCE)
    return Slice(plan=plan, instance=instance)


def _newest_output(tx: Any, lane: tuple[int, ...], *, is_any_below: bool = False) -> None:
    reading.fill(tx, [(_slice(), Needs(outputs=frozenset({OutputKey("block", lane, is_any_below)})))])


QUERIES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "the next ready step of a queue": (
        "steps_ready_idx",
        lambda tx: claiming.claim_ready(tx, "gpu", ["noop"], WORKER),
    ),
    "the step a hint names": ("steps_id_key", lambda tx: claiming.claim_one(tx, uuid4(), ["noop"], WORKER)),
    "a hinted step that yields": (
        "steps_id_key",
        lambda tx: claiming.claim_ready(tx, "gpu", ["noop"], WORKER, step_id=uuid4()),
    ),
    "the highest priority that waits": ("steps_ready_idx", lambda tx: claiming.most_urgent(tx, ["gpu"], ["noop"])),
    "tasks for a polling worker": (
        "steps_ready_idx",
        lambda tx: claiming.claim_tasks(tx, queue="gpu", is_named=True, handler="render", tenant_id=None, takers=["w"]),
    ),
    "the heads of all queues": ("steps_ready_idx", lambda tx: hints.heads(tx, ["noop"], timedelta(seconds=15), 500)),
    "hints that are out": ("steps_ready_idx", lambda tx: hints.outstanding(tx, timedelta(seconds=15))),
    "events due to an address": (
        "webhook_outbox_due_idx",
        lambda tx: webhooks.claim_due(tx, "u", lease=timedelta(seconds=30), limit=32),
    ),
    "earlier events of an instance": (
        "webhook_outbox_order_idx",
        lambda tx: webhooks.claim_due(tx, "u", lease=timedelta(seconds=30), limit=32),
    ),
    "the next event due to an address": ("webhook_outbox_due_idx", lambda tx: webhooks.next_due(tx, "u")),
    "the list of events": ("webhook_outbox_number_idx", lambda tx: webhooks.find(tx, None, 100)),
    "the list of events of a tenant": ("webhook_outbox_number_idx", lambda tx: webhooks.find(tx, "t", 100)),
    "the tries of a delivery": (
        "webhook_attempts_delivery_id_idx",
        lambda tx: webhooks.attempts_of(tx, INSTANCE, None),
    ),
    "tries too old to keep": (
        "webhook_attempts_attempted_at_idx",
        lambda tx: webhooks.forget(tx, older_than=timedelta(days=7), beyond=10_000),
    ),
    "the next task to be pushed again": ("task_pushes_due_at_idx", dispatch.next_due),
    "new tasks of a push queue": (
        "steps_ready_idx",
        lambda tx: dispatch.claim(tx, PUSH_QUEUE, lease=timedelta(seconds=30), limit=16),
    ),
    "what a worker was told": (
        "worker_commands_worker_id_idx",
        lambda tx: worker_orders.commands_of(tx, "w", 100),
    ),
    "timers that are due": ("timers_due_at_idx", lambda tx: timers.due(tx, 200)),
    "the next timer": ("timers_due_at_idx", timers.next_due),
    "claims of a worker": ("steps_claimed_idx", lambda tx: leases.claims_of(tx, WORKER.id or INSTANCE)),
    "lost claims": ("steps_claimed_idx", lambda tx: leases.lost_claims(tx, timedelta(seconds=6), 200)),
    "the newest output of a block": ("outputs_newest_idx", lambda tx: _newest_output(tx, (), is_any_below=True)),
    "the newest output below a lane": ("outputs_newest_idx", lambda tx: _newest_output(tx, (3,), is_any_below=True)),
    "the newest output of a block in a lane": ("outputs_newest_idx", lambda tx: _newest_output(tx, (3,))),
    "open gates": (
        "steps_gate_idx",
        lambda tx: instances.open_gates(tx, tenant_id="t", namespace=None, offset=0, limit=50),
    ),
    "open composites": ("nodes_unfinished_idx", lambda tx: reading.fill(tx, [(_slice(), Needs(open_work=True))])),
    "nodes that ended badly": (
        "nodes_unfinished_idx",
        lambda tx: reading.fill(tx, [(_slice(), Needs(ended_badly=True))]),
    ),
    "an attempt that has ended": ("attempts_step_id_idx", lambda tx: tasks.ended(tx, uuid4())),
    "what happened to a task": ("task_events_step_id_idx", lambda tx: task_events.of_task(tx, uuid4())),
    "kept signals": ("signals_kept_idx", lambda tx: reading.fill(tx, [(_slice(), Needs(signals=True))])),
    "instances of a session": (
        "instances_session_id_idx",
        lambda tx: listing.ids(tx, listing.Filter(session_id=INSTANCE)),
    ),
    "children of an instance": (
        "contexts_parent_instance_id_idx",
        lambda tx: instances.children(tx, INSTANCE),
    ),
    "letters that nobody has delivered": ("letters_due_at_idx", lambda tx: letters.overdue(tx, 200)),
    "instances that ended long ago": (
        "instances_retention_idx",
        lambda tx: removal.remove_ended(tx, timedelta(days=1)),
    ),
    "deleted sequences that have left instances": ("deleted_sequences_has_instances_idx", removal.remove_of_deleted),
    "nonces that may be forgotten": ("nonces_used_at_idx", lambda tx: nonces.forget_old(tx, 5000)),
    "schedules of a tenant": ("schedules_tenant_id_idx", lambda tx: schedules.find(tx, "t", 100)),
    "schedules of a sequence": (
        "schedules_sequence_id_idx",
        lambda tx: schedules.delete_of_sequence(tx, INSTANCE),
    ),
    "schedules that are due": ("schedules_due_at_idx", lambda tx: schedules.due(tx, 50)),
    "the next schedule": ("schedules_due_at_idx", schedules.next_due),
    "the run of an instance": (
        "schedule_runs_instance_id_idx",
        lambda tx: removal.remove_instances(tx, [INSTANCE]),
    ),
    "the idempotency key of an instance": (
        "idempotency_keys_instance_id_idx",
        lambda tx: removal.remove_instances(tx, [INSTANCE]),
    ),
    "the emission keys of an instance": (
        "emission_keys_instance_id_idx",
        lambda tx: removal.remove_instances(tx, [INSTANCE]),
    ),
    "the key of a request": ("api_keys_digest_key", lambda tx: api_keys.in_force(tx, ["0", "1"])),
    "the change feed": ("transitions_feed_idx", lambda tx: change_feed.after(tx, "t", None, 100)),
    "how far change feeds go": ("transitions_feed_idx", lambda tx: change_feed.newest(tx, ["t"])),
    "the credentials of a tenant": ("credentials_tenant_id_idx", lambda tx: credentials.find(tx, "t", 10)),
    "what a tenant has used": ("usage_events_pkey", lambda tx: usage.sums(tx, "t", MOMENT, None)),
    "what a tenant has used, by step": (
        "usage_events_pkey",
        lambda tx: usage.grouped(tx, "t", MOMENT, None, usage.Grouping.STEP),
    ),
    "the keys of a tenant": ("api_keys_tenant_id_idx", lambda tx: api_keys.find(tx, "t", limit=10)),
}
UP_TO_A_MOMENT = (
    "events due to an address",
    "the next event due to an address",
    "tries too old to keep",
    "timers that are due",
    "letters that nobody has delivered",
    "instances that ended long ago",
    "nonces that may be forgotten",
    "schedules that are due",
)
"""Queries that find nothing most of the time, in tables with very many rows of another time."""
PLANNED_WITH_ROWS = {
    "instances_of_tenant_idx",
    "instances_of_namespace_and_sequence_idx",
    "instances_of_sequence_idx",
    "instances_listed_idx",
    "metadata_entries_instance_id_idx",
    "transitions_created_at_idx",
}
"""Of lists and counts, whose plans depend on what is in the tables (test_plans_of_lists)."""
INDEXED = {index for index, _ in QUERIES.values()} | PLANNED_WITH_ROWS


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_uses_its_index(explaining: Explaining, name: str) -> None:
    index, run = QUERIES[name]
    run(explaining)
    # A partition's index has the partition's name in place of its table's.
    in_plan = index.removeprefix("attempts")
    assert any(in_plan in plan for plan in explaining.plans), "\n\n".join(explaining.plans)


def test_a_look_for_what_is_due_reads_nothing_else(explaining: Explaining) -> None:
    for name in UP_TO_A_MOMENT:
        explaining.plans.clear()
        index, run = QUERIES[name]
        run(explaining)
        assert _is_read_up_to_a_moment(index, explaining), "\n\n".join([name, *explaining.plans])


def test_a_look_that_reads_all_that_is_not_due_would_be_noticed(explaining: Explaining) -> None:
    explaining.query("SELECT 1 FROM timers WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 1")
    assert "timers_due_at_idx" in explaining.plans[0]
    assert not _is_read_up_to_a_moment("timers_due_at_idx", explaining)


def _is_read_up_to_a_moment(index: str, explaining: Explaining) -> bool:
    """Tell whether a moment is where the reading of an index ends, and not only what each row is compared with."""
    return any(re.search(rf"using {index} .*\n +Index Cond: .*_timestamp\(\)", plan) for plan in explaining.plans)


def test_a_query_without_an_index_would_be_noticed(explaining: Explaining) -> None:
    explaining.query("SELECT 1 FROM steps WHERE handler = 'noop'")
    assert "Seq Scan" in explaining.plans[0]


def _forms_of(module: Any) -> Iterator[Form]:
    for kept in vars(module).values():
        if isinstance(kept, Form):
            yield kept
        elif isinstance(kept, Prepared):
            yield from (kept.for_one, kept.for_many)


READ_WHOLE = ("workers", "routing_rules")
"""Tables of a few rows, of which all are wanted."""
MODULES = (apply, reading, breakers, claiming, creations, definitions, instances, leases)
KEPT = [form for module in MODULES for form in _forms_of(module) if form.prepare]


@pytest.mark.parametrize("form", KEPT, ids=lambda form: form.name)
def test_a_kept_plan_goes_by_index_although_the_tables_were_empty_when_it_was_made(store: Store, form: Form) -> None:
    values = [None] * form.execute.count("%s")
    with store.transaction() as tx:
        tx.execute("ANALYZE")
        plan = "\n".join(row[0] for row in tx.ask(replace(form, execute=f"EXPLAIN {form.execute}"), values))
    assert not re.search(rf"Seq Scan(?! on ({'|'.join(READ_WHOLE)}))|Hash Join|Merge Join", plan), plan
    for scan, following in pairwise(plan.splitlines()):
        is_small = any(f" on {table} " in scan for table in READ_WHOLE)
        assert is_small or "Index Scan" not in scan or "Cond" in following, f"reads all of an index:\n{plan}"
