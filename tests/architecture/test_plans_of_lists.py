"""Lists of instances read little more than the page they show, and counts of what has happened lately little more than
that, however many instances there are."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest

from orchestrator.store import installation, instances, listing, observed, pages, upkeep
from orchestrator.store.listing import Filter
from orchestrator.store.session import Store, Transaction
from tests.support.pages import page

INSTANCES = 20_000
LIMIT = 20
READ_AT_MOST = 6 * listing.FEW
"""Rows of one scan: a page and what a filter leaves out on the way, or all six entries of a few instances."""

SEQUENCE = UUID(int=1)
_FILL = (
    "INSERT INTO instances (id, tenant_id, namespace, sequence_id, state, version, priority, timezone, running, "
    "waiting, scheduled, is_held, is_cancelling, round, total_steps, dry_run, dry_run_auto_approve, created_at, "
    "updated_at) SELECT lpad(to_hex(i), 32, '0')::uuid, 't' || i %% 2, "
    "CASE WHEN i %% 1000 < 2 THEN 'rare' WHEN i %% 3 = 2 THEN 'batch' ELSE 'n' END, "
    "lpad((i %% 3)::text, 32, '0')::uuid, "
    "(ARRAY['completed', 'failed', 'scheduled', 'waiting', 'running', 'completed', 'paused'])[1 + i %% 7], "
    "1, 1, 'UTC', 0, 0, 0, false, false, 0, 1, false, false, moment, moment "
    "FROM (SELECT i, timestamptz '2026-01-01Z' + i * interval '100 ms' AS moment FROM generate_series(1, %s) AS i) AS g"
)
_CONTEXTS = (
    "INSERT INTO contexts (instance_id, metadata) SELECT lpad(to_hex(i), 32, '0')::uuid, "
    "jsonb_build_object('often', (i %% 3)::text, 'half', (i %% 4 / 2)::text, 'some', (i %% 50)::text, "
    "'seldom', i %% 2000, 'once', i::text, 'import', CASE WHEN i < 5000 THEN 'old' ELSE 'new' END) "
    "FROM generate_series(1, %s) AS i"
)


class Measuring:
    """A transaction that notes how many rows each scan of a statement has read, and how many pairs a join left out."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.execute = tx.execute
        self.reads: dict[str, int] = {}

    def later(self, statement: str, parameters: Any = None) -> None:
        if statement.startswith("SELECT"):
            self.query(statement, parameters)
        else:
            self._tx.later(statement, parameters)

    def query(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        self.note(statement, parameters)
        return self._tx.query(statement, parameters)

    def note(self, statement: str, parameters: Any = None) -> None:
        [(plans,)] = self._tx.query("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)
        self._note(plans[0]["Plan"])

    def _note(self, node: dict[str, Any]) -> None:
        if "Scan" in node["Node Type"]:
            name = f"{node['Node Type']} of {node.get('Index Name') or node.get('Relation Name')}"
            self._read(name, (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        if pairs := node.get("Rows Removed by Join Filter", 0):
            self._read(f"pairs of {node['Node Type']}", pairs * node["Actual Loops"])
        for child in node.get("Plans", ()):
            self._note(child)

    def _read(self, name: str, rows: float) -> None:
        self.reads[name] = max(self.reads.get(name, 0), round(rows))


@pytest.fixture
def filled(store: Store) -> Store:
    with store.transaction() as tx:
        tx.execute("SET LOCAL statement_timeout = 0")
        tx.execute(_FILL, (INSTANCES,))
        tx.execute(_CONTEXTS, (INSTANCES,))
        for table in ("instances", "contexts", "metadata_entries"):
            tx.execute(f"ANALYZE {table}")
    return store


FILTERS = {
    "nothing": Filter(),
    "a tenant": Filter(tenant_id="t1"),
    "a state": Filter(states=("waiting",)),
    "a tenant and states": Filter(tenant_id="t1", states=("running", "failed")),
    "a namespace": Filter(tenant_id="t1", namespace="n"),
    "a rare namespace": Filter(tenant_id="t1", namespace="rare"),
    "a rare namespace and a state": Filter(tenant_id="t1", namespace="rare", states=("failed",)),
    "a namespace that is not there": Filter(tenant_id="t1", namespace="none"),
    "a rare namespace of a sequence": Filter(tenant_id="t1", namespace="rare", sequence_id=SEQUENCE),
    "a sequence": Filter(sequence_id=SEQUENCE),
    "a sequence and a namespace it is not in": Filter(tenant_id="t1", namespace="batch", sequence_id=SEQUENCE),
    "a tenant, a sequence and a state": Filter(tenant_id="t1", sequence_id=SEQUENCE, states=("completed",)),
    "what many have": Filter(tenant_id="t1", metadata=(("often", "1"),)),
    "what many of a state have": Filter(tenant_id="t1", states=("scheduled",), metadata=(("often", "1"),)),
    "what many of all tenants have": Filter(metadata=(("often", "1"),)),
    "what some have": Filter(tenant_id="t1", metadata=(("some", "7"),)),
    "what some of a state have": Filter(tenant_id="t1", states=("failed",), metadata=(("some", "7"),)),
    "what some of a rare namespace have": Filter(tenant_id="t1", namespace="rare", metadata=(("some", "7"),)),
    "what few have": Filter(tenant_id="t1", metadata=(("seldom", "77"),)),
    "what one has": Filter(metadata=(("once", "4711"),)),
    "what none has": Filter(tenant_id="t1", metadata=(("once", "none"),)),
    "what old ones have": Filter(tenant_id="t1", metadata=(("import", "old"),)),
    "what old ones of two states have": Filter(
        tenant_id="t1", states=("failed", "running"), metadata=(("import", "old"),)
    ),
    "what many and some have": Filter(tenant_id="t1", metadata=(("often", "1"), ("some", "7"))),
    "what many and many have": Filter(tenant_id="t1", metadata=(("often", "1"), ("half", "1"))),
    "what many and old ones have": Filter(tenant_id="t1", metadata=(("often", "1"), ("import", "old"))),
    "what old ones and many have": Filter(tenant_id="t1", metadata=(("import", "old"), ("often", "1"))),
    "what many and old ones of all tenants have": Filter(metadata=(("half", "1"), ("import", "old"), ("often", "1"))),
    "what some of a sequence have": Filter(tenant_id="t1", sequence_id=SEQUENCE, metadata=(("some", "7"),)),
    "what many of a sequence and of states have": Filter(
        tenant_id="t1", sequence_id=SEQUENCE, states=("completed", "failed"), metadata=(("often", "1"),)
    ),
    "what many of a sequence of all tenants have": Filter(sequence_id=SEQUENCE, metadata=(("half", "1"),)),
    "what few of a sequence have": Filter(
        tenant_id="t1", sequence_id=SEQUENCE, metadata=(("often", "1"), ("seldom", "77"))
    ),
}


def test_a_list_reads_little_more_than_its_page(filled: Store) -> None:
    too_many: dict[str, dict[str, int]] = {}
    for name, which in FILTERS.items():
        with filled.reading(which.tenant_id) as tx:
            measuring = Measuring(tx)
            transaction: Any = measuring
            page(transaction, which, offset=0, limit=LIMIT)
        if scans := {scan: rows for scan, rows in measuring.reads.items() if rows > READ_AT_MOST}:
            too_many[name] = scans
    assert too_many == {}


@pytest.mark.parametrize(("few", "probed"), [(listing.FEW, listing.PROBED), (50, 4), (0, 10**6)])
def test_a_page_shows_what_looking_at_everything_would(
    filled: Store, monkeypatch: pytest.MonkeyPatch, few: int, probed: int
) -> None:
    """Also where many instances are walked, and where entries of a member that many have are looked up."""
    monkeypatch.setattr(listing, "FEW", few)
    monkeypatch.setattr(listing, "PROBED", probed)
    with filled.transaction() as tx:
        rows = tx.query(
            "SELECT i.id, i.tenant_id, i.namespace, i.sequence_id, i.state, c.metadata FROM instances i "
            "JOIN contexts c ON c.instance_id = i.id ORDER BY i.updated_at DESC, i.id DESC"
        )
    for offset in (0, 30):
        for name, which in FILTERS.items():
            expected = [row[0] for row in rows if _is_meant(which, *row[1:])][offset : offset + LIMIT]
            with filled.reading(which.tenant_id) as tx:
                shown = page(tx, which, offset=offset, limit=LIMIT)
            assert shown == expected, name


def _is_meant(which: Filter, tenant: str, namespace: str, sequence: UUID, state: str, metadata: dict[str, Any]) -> bool:
    return (
        which.tenant_id in {None, tenant}
        and which.namespace in {None, namespace}
        and which.sequence_id in {None, sequence}
        and (which.states is None or state in which.states)
        and all(str(metadata.get(key)) == text for key, text in which.metadata)
    )


def test_each_entry_is_read_once_although_the_planner_has_last_seen_one_instance(store: Store) -> None:
    with store.transaction() as tx:
        tx.execute(_FILL, (1,))
        tx.execute(_CONTEXTS, (1,))
        tx.execute("ANALYZE instances, metadata_entries")
        tx.execute("DELETE FROM metadata_entries; DELETE FROM contexts; DELETE FROM instances")
        tx.execute(_FILL, (2000,))
        tx.execute(_CONTEXTS, (2000,))
    for name, which in FILTERS.items():
        with store.reading(which.tenant_id) as tx:
            measuring = Measuring(tx)
            transaction: Any = measuring
            listing.matching(transaction, which, limit=LIMIT)
        with store.reading(which.tenant_id) as tx:
            transaction = Measuring(tx)
            page(transaction, which, offset=0, limit=LIMIT)
            measuring.reads |= {f"page: {scan}": rows for scan, rows in transaction.reads.items()}
        assert max(measuring.reads.values()) <= READ_AT_MOST, name


def test_the_plan_that_a_tenant_without_any_leaves_suits_one_with_many(filled: Store) -> None:
    with filled.transaction() as tx:
        tx.execute("UPDATE instances SET current_step = 's'")
        tx.execute(
            "INSERT INTO timers (instance_id, block_id, iteration, due_at) "
            "SELECT id, 's', '{}', now() FROM instances WHERE state = 'scheduled'"
        )
    with filled.reading("nobody") as tx:
        instances.freeze(tx)
        assert pages.find(tx, Filter(tenant_id="nobody"), offset=0, limit=LIMIT) == []
    for tenant in ("t0", "t1"):
        which = Filter(tenant_id=tenant, states=("scheduled", "running"))
        with filled.reading(tenant) as tx:
            instances.freeze(tx)
            shown = pages.find(tx, which, offset=0, limit=LIMIT)
            assert [row.tenant_id for row in shown] == [tenant] * LIMIT
            assert any(row.due_at for row in shown)
            measuring = Measuring(tx)
            measuring.note("EXECUTE show_page")
        assert max(measuring.reads.values()) <= READ_AT_MOST
        assert any("timers_pkey" in scan for scan in measuring.reads)


def test_a_plan_of_the_account_shows_a_tenant_nothing_of_others(filled: Store) -> None:
    everybody = Filter(states=("completed",))
    for tenant, shown in ((None, {"t0", "t1"}), ("t1", {"t1"}), ("nobody", set()), (None, {"t0", "t1"})):
        with filled.reading(tenant) as tx:
            instances.freeze(tx)
            rows = pages.find(tx, everybody, offset=0, limit=LIMIT)
        assert {row.tenant_id for row in rows} == shown


def test_a_list_without_an_index_would_be_noticed(filled: Store) -> None:
    with filled.transaction() as tx:
        measuring = Measuring(tx)
        measuring.query("SELECT id FROM instances ORDER BY updated_at DESC LIMIT 20")
    assert max(measuring.reads.values()) == INSTANCES


def test_what_has_happened_lately_is_counted_without_reading_what_happened_before(store: Store) -> None:
    happened = "timestamptz '2026-01-07T12:00:00Z' - (%s - i) * interval '10 ms' FROM generate_series(1, %s) AS i"
    with store.transaction() as tx:
        upkeep.make_partition(tx, date(2026, 1, 5))
        tx.execute(
            "INSERT INTO attempts (instance_id, id, block_id, iteration, step_id, attempt, handler, queue, "
            "outcome, token, claimed_at, ended_at) SELECT gen_random_uuid(), gen_random_uuid(), 'a', '{}', "
            f"gen_random_uuid(), 0, 'noop', 'default', 'completed', gen_random_uuid(), '2026-01-01Z', {happened}",
            (INSTANCES, INSTANCES),
        )
        tx.execute(
            "INSERT INTO transitions (instance_id, id, tenant_id, event_type, to_state, details, created_at) "
            f"SELECT gen_random_uuid(), gen_random_uuid(), 't', 'state', 'completed', '{{}}', {happened}",
            (INSTANCES, INSTANCES),
        )
        tx.query(
            "SELECT brin_summarize_new_values(indexrelid) FROM pg_index WHERE indexrelid::regclass::text ~ %s",
            ("(_lately|transitions_created_at)_idx$",),
        )
        tx.execute("ANALYZE attempts, transitions")
        installation.write(tx, "metrics_until", "2026-01-07T11:59:58+00:00")
        measuring: Any = Measuring(tx)
        counted = observed.totals(measuring)
    assert counted["orch8_steps_executed"] == counted["orch8_instances_completed"] == 200
    assert max(measuring.reads.values()) < INSTANCES / 4
    used = {scan.rpartition(" ")[2] for scan in measuring.reads}
    assert used >= {"attempts_2026_01_05_lately_idx", "transitions_created_at_idx"}
