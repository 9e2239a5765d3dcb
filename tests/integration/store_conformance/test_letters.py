"""Letters between instances, and children."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from orchestrator.core.changes import ChildCreated, ContextPut, LetterOpened, LetterWritten
from orchestrator.core.letters import Letter, SignalSent
from orchestrator.core.model import ROOT_KEY, Instance, NodeKey, Parent
from orchestrator.core.slice import Needs
from orchestrator.core.states import InstanceState
from sequences.signals import Custom
from tests.integration.store_conformance.house import House, output, put


def write_letter(house: House, recipient: Instance | UUID, payload: Any = None) -> UUID:
    sender = house.instance()
    found = recipient if isinstance(recipient, UUID) else recipient.id
    content = SignalSent(signal=Custom("go"), payload=payload)
    letter = Letter(id=house.new_id(), sender=sender.id, recipient=found, content=content)
    house.write(sender, LetterWritten(letter=letter))
    return letter.id


def test_letters_are_read_in_order_and_gone_once_opened(house: House) -> None:
    flow = house.instance()
    first, second = write_letter(house, flow, {"n": 1}), write_letter(house, flow, [2])
    with house.store.transaction() as tx:
        assert tx.waiting_letters([flow.id, uuid4()]) == {flow.id: 2}
    seen = house.slice(flow, Needs(letters=True)).letters
    assert seen is not None
    assert [(i, letter.content.payload) for i, letter in seen.items()] == [(first, {"n": 1}), (second, [2])]
    house.write(flow, LetterOpened(id=first))
    assert list(house.slice(flow, Needs(letters=True)).letters or ()) == [second]


def test_letters_are_overdue_after_a_grace_and_can_be_postponed(house: House) -> None:
    flow = house.instance()
    write_letter(house, flow)

    def overdue() -> bool:
        with house.store.transaction() as tx:
            return flow.id in tx.overdue_letters(10_000)

    assert not overdue()
    house.elapse(timedelta(seconds=1))
    assert overdue()
    with house.store.transaction() as tx:
        tx.postpone_letters(flow.id, timedelta(hours=1))
    assert not overdue()


def test_only_letters_that_nobody_can_open_are_dropped(house: House) -> None:
    living, ended, nobody = house.instance(), house.instance(), uuid4()
    house.write(ended, put(ended, state=InstanceState.FAILED))
    for recipient in (living, ended, nobody):
        write_letter(house, recipient)
    everybody = [living.id, ended.id, nobody]
    with house.store.transaction() as tx:
        assert tx.drop_undeliverable_letters(everybody) == 2
        assert tx.waiting_letters(everybody) == {living.id: 1}


def test_a_child_has_its_parents_config_and_a_timer_that_is_due(house: House) -> None:
    parent = house.instance()
    now = house.now()
    made_by = Parent(instance_id=parent.id, key=NodeKey("call", (2,)))
    child = replace(parent, id=house.new_id(), scheduled=1, parent=made_by, depth=1, created_at=now, updated_at=now)
    house.write(parent, ChildCreated(child=child, data={"x": 1}))
    with house.store.transaction() as tx:
        assert tx.load_instances([child.id]) == {child.id: child}
        assert [due.key for due in tx.due_timers(10_000) if due.instance_id == child.id] == [ROOT_KEY]
    assert house.slice(child, Needs(context=True)).context == ContextPut(data={"x": 1}, config={"c": True})


def test_rows_of_a_child_are_shown_as_clients_see_them(house: House) -> None:
    reader, child = house.instance(), house.instance()
    house.write(child, output({"x": "ü"}, at=house.now()))
    (row,) = house.slice(reader, Needs(child_rows=frozenset({child.id}))).child_rows[child.id]
    assert (row["instance_id"], row["block_id"], row["output"], row["output_ref"]) == (
        str(child.id),
        "a",
        {"x": "ü"},
        None,
    )
    assert (row["output_size"], row["attempt"], row["created_at"][-1]) == (10, 0, "Z")
