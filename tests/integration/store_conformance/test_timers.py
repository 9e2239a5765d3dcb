"""Timers that are due."""

from datetime import timedelta
from typing import Any

from orchestrator.core.changes import TimerGone, TimerPut
from orchestrator.core.model import NodeKey
from tests.integration.store_conformance.house import House


def test_timers_are_due_in_order_and_once_set_anew_only_then(house: House) -> None:
    flow = house.instance()
    now = house.now()
    keys = [NodeKey("a", (number,)) for number in range(3)]
    house.write(flow, *(TimerPut(key=key, due_at=now + timedelta(hours=3 - key.iteration[0])) for key in keys))
    house.elapse(timedelta(hours=2, minutes=1))

    def due() -> list[Any]:
        with house.store.transaction() as tx:
            return [found for found in tx.due_timers(10_000) if found.instance_id == flow.id]

    seen = due()
    assert [found.key for found in seen] == [keys[2], keys[1]]
    with house.store.transaction() as tx:
        assert tx.next_due() is not None
        tx.postpone_timer(seen[0], timedelta(hours=9))
        tx.write([(flow, (TimerPut(key=keys[1], due_at=now), TimerGone(key=keys[0])))])
        tx.drop_timers(seen)
    assert [found.key for found in due()] == [keys[1]], "the one set anew stands, although the old one was dropped"
    house.elapse(timedelta(hours=10))
    assert [found.key for found in due()] == [keys[1], keys[2]]
