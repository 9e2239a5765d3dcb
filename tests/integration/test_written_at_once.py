"""What was decided in memory about one instance is written and committed in one message."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from orchestrator.carry import CarryOn
from orchestrator.core.outcomes import Completed
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Report, Wish
from orchestrator.settings import Settings
from orchestrator.store import hints, instances
from orchestrator.store.claiming import Worker
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store, Transaction
from sequences.signals import Control
from tests.support.stack import NAMESPACE, TENANT, define

ME = Worker(id=None, name="w")
KNOWN = frozenset({"plain"})
WAYS = {
    b"EXECUTE update_if_": "updates at once",
    b"EXECUTE lock": "locks",
    b"EXECUTE add_outputs": "writes",
    b"COMMIT": "commits",
}
"""What is told of a message by what it holds, in the order in which it comes there."""
AT_ONCE = ["updates at once", "writes"]
LOCKED = ["locks", "writes", "commits"]


class Hands:
    """One worker that runs the steps of one instance, one after the other, and notes how each is committed."""

    def __init__(self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.engine = Engine(PostgresStore(store.url), None, settings)
        self.engine.now()  # a process that has not been told the time decides nothing in memory
        self.ways: list[str] = []
        send = Transaction._send

        def noted(tx: Transaction, statement: bytes) -> None:
            message = b"\n".join([*tx._waiting, statement])
            self.ways += [way for mark, way in WAYS.items() if mark in message]
            send(tx, statement)

        monkeypatch.setattr(Transaction, "_send", noted)

    def start(self, *fields: dict[str, Any]) -> UUID:
        """Start an instance of plain steps with these fields."""
        blocks = [{"type": "step", "id": f"s{n}", "handler": "plain", **each} for n, each in enumerate(fields)]
        request = NewInstance(sequence_id=define(self.store, blocks, "plain"), tenant_id=TENANT, namespace=NAMESPACE)
        return self.engine.start_many([request])[0].id

    def run(self, before: Callable[[str], None] = lambda _block: None) -> dict[str, list[str]]:
        """Run what is ready; tells how each step was committed."""
        carry_on = CarryOn(
            worker=ME,
            queues=frozenset({"default"}),
            handlers=KNOWN,
            instant=frozenset(),
            limit=1,
            rounds_left=lambda _: 1,
        )
        took: dict[str, list[str]] = {}
        claims = self.engine.claim(ME, Wish(queue="default", handlers=[*KNOWN], together=frozenset(), limit=1))
        while claims:
            [work] = self.engine.inputs(claims)
            before(work.claim.key.block_id)
            self.ways.clear()
            finished = self.engine.finish([Report(claim=work.claim, outcome=Completed(output={"n": 1}))], carry_on)
            took[work.claim.key.block_id] = self._told()
            claims = list(finished.claims)
        return took

    def _told(self) -> list[str]:
        """Tell of the messages since the last step, without those that only ask who knows which handlers."""
        return self.ways[1:] if self.ways[:1] == ["commits"] else [*self.ways]

    def state(self, instance_id: UUID) -> tuple[str, int, int]:
        """Give the state of an instance, and how many outputs and attempts it has."""
        with self.store.transaction() as tx:
            [(outputs, attempts)] = tx.query(
                "SELECT (SELECT count(*) FROM outputs WHERE instance_id = %(id)s), "
                "(SELECT count(*) FROM attempts WHERE instance_id = %(id)s)",
                {"id": instance_id},
            )
            return instances.states_of(tx, [instance_id])[instance_id], outputs, attempts


@pytest.fixture
def hands(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(store, settings, monkeypatch)


def test_a_lone_step_is_committed_with_one_message(hands: Hands) -> None:
    flow = hands.start({}, {}, {}, {})
    took = hands.run()
    assert list(took) == ["s0", "s1", "s2", "s3"]
    assert took["s2"] == AT_ONCE
    assert hands.state(flow) == ("completed", 4, 4)


def test_a_step_of_an_instance_that_was_changed_meanwhile_is_decided_again(hands: Hands, settings: Settings) -> None:
    """The first step behind such a change locks first; the one behind that is committed with one message again."""
    flow = hands.start({}, {}, {}, {}, {})
    other = Engine(PostgresStore(hands.store.url), None, settings)

    def annoyed(block: str) -> None:
        if block == "s1":
            other.interventions.signal(flow, Control.UPDATE_CONTEXT, {"data": {"told": True}})

    took = hands.run(annoyed)
    assert took["s1"] == [*AT_ONCE, *LOCKED]
    assert took["s2"] == LOCKED
    assert took["s3"] == AT_ONCE
    assert hands.state(flow) == ("completed", 5, 5)


def test_a_step_whose_claim_was_given_back_is_not_stored(hands: Hands) -> None:
    """A claim that ends without a decision leaves the version of the instance as it was."""
    flow = hands.start({}, {})

    def robbed(block: str) -> None:
        with hands.store.transaction() as tx:
            tx.execute("UPDATE steps SET state = 'ready', token = NULL WHERE instance_id = %s", (flow,))

    assert list(hands.run(robbed)) == ["s0"]
    assert hands.state(flow) == ("waiting", 0, 0)
    with hands.store.transaction() as tx:
        assert [row[1:] for row in hints.backlog(tx)] == [("ready", 1)]


def test_what_cannot_be_written_at_once_is_written_under_the_lock(hands: Hands) -> None:
    """A large output is stored apart, by a statement that is put together for it."""
    flow = hands.start({}, {})
    large = Completed(output={"text": "x" * 100_000})
    claims = hands.engine.claim(ME, Wish(queue="default", handlers=[*KNOWN], together=frozenset(), limit=1))
    hands.engine.inputs(claims)
    hands.ways.clear()
    hands.engine.finish([Report(claim=claims[0], outcome=large)])
    assert "updates at once" not in hands.ways
    assert "locks" in hands.ways
    assert hands.state(flow) == ("waiting", 1, 1)
