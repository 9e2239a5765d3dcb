"""Lists of instances read little more than the page they show, however many instances there are."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from orchestrator.store import instances
from orchestrator.store.instances import Filter
from orchestrator.store.session import Store, Transaction

INSTANCES = 20_000
LIMIT = 20
READ_AT_MOST = 1_000
"""Rows of one scan: a page, what is left of the step of `listed_at` it ends in, and what a filter leaves out."""

SEQUENCE = UUID(int=1)
_FILL = (
    "INSERT INTO instances (id, tenant_id, namespace, sequence_id, state, version, priority, timezone, running, "
    "waiting, scheduled, is_held, is_cancelling, round, total_steps, dry_run, dry_run_auto_approve, created_at, "
    "updated_at) SELECT lpad(to_hex(i), 32, '0')::uuid, 't' || i %% 2, "
    "CASE WHEN i %% 1000 < 2 THEN 'rare' ELSE 'n' END, lpad((i %% 3)::text, 32, '0')::uuid, "
    "(ARRAY['completed', 'failed', 'scheduled', 'waiting', 'running', 'completed', 'paused'])[1 + i %% 7], "
    "1, 1, 'UTC', 0, 0, 0, false, false, 0, 1, false, false, moment, moment "
    "FROM (SELECT i, timestamptz '2026-01-01Z' + i * interval '100 ms' AS moment FROM generate_series(1, %s) AS i) AS g"
)
_CONTEXTS = (
    "INSERT INTO contexts (instance_id, metadata) SELECT lpad(to_hex(i), 32, '0')::uuid, "
    "jsonb_build_object('often', (i %% 3)::text, 'seldom', i %% 2000, 'once', i::text) FROM generate_series(1, %s) AS i"
)


class Measuring:
    """A transaction that tells how many rows each scan of a statement has read, instead of what it gives."""

    finds = False

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.reads: dict[str, int] = {}

    def query(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        [(plans,)] = self._tx.query("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)
        self._note(plans[0]["Plan"])
        return []

    def _note(self, node: dict[str, Any]) -> None:
        if "Scan" in node["Node Type"]:
            name = f"{node['Node Type']} of {node.get('Index Name') or node.get('Relation Name')}"
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            self.reads[name] = max(self.reads.get(name, 0), round(rows))
        for child in node.get("Plans", ()):
            self._note(child)


@pytest.fixture
def measuring(store: Store) -> Iterator[Measuring]:
    with store.transaction() as tx:
        tx.execute(_FILL, (INSTANCES,))
        tx.execute(_CONTEXTS, (INSTANCES,))
        tx.execute("ANALYZE instances")
        tx.execute("ANALYZE contexts")
        yield Measuring(tx)


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
    "a tenant, a sequence and a state": Filter(tenant_id="t1", sequence_id=SEQUENCE, states=("completed",)),
    "what many have": Filter(tenant_id="t1", metadata=(("often", "1"),)),
    "what many of a state have": Filter(states=("scheduled",), metadata=(("often", "1"),)),
    "what few have": Filter(tenant_id="t1", metadata=(("seldom", "77"),)),
    "what one has": Filter(metadata=(("once", "4711"),)),
    "what none has": Filter(tenant_id="t1", metadata=(("once", "none"),)),
    "what few of a sequence have": Filter(sequence_id=SEQUENCE, metadata=(("often", "1"), ("seldom", "77"))),
}


def test_a_list_reads_little_more_than_its_page(measuring: Measuring) -> None:
    found: dict[str, dict[str, int]] = {}
    for name, which in FILTERS.items():
        measuring.reads = {}
        transaction: Any = measuring
        instances.find(transaction, which, offset=0, limit=LIMIT)
        found[name] = {scan: rows for scan, rows in measuring.reads.items() if rows > READ_AT_MOST}
    assert not {name: scans for name, scans in found.items() if scans}


def test_a_list_without_an_index_would_be_noticed(measuring: Measuring) -> None:
    measuring.query("SELECT id FROM instances ORDER BY updated_at DESC LIMIT 20")
    assert max(measuring.reads.values()) == INSTANCES
