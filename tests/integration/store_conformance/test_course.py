"""How far an instance has come: what a slice of it is filled with."""

from dataclasses import replace
from uuid import uuid4

from orchestrator.core.changes import (
    BlocksForgotten,
    ContextPut,
    InjectionAdded,
    ItemsCaptured,
    NodePut,
    SignalConsumed,
    SignalKept,
    StateGone,
    StatePut,
)
from orchestrator.core.model import BESIDE, ItemKey, KeptSignal, Node, NodeKey
from orchestrator.core.plan import Injection, Plan
from orchestrator.core.slice import ABSENT, Needs, Slice
from orchestrator.core.states import NodeState
from sequences.document import parse_blocks
from tests.integration.store_conformance.house import KEY, NEWEST, House, output
from tests.support.drive import definition_of, step


def test_nodes_and_steps_that_are_not_there_are_known_to_be_absent(house: House) -> None:
    flow = house.instance()
    node = Node(key=KEY, state=NodeState.RUNNING, started_at=flow.created_at, memory={"choice": 1, "seen": (1, 2)})
    house.write(flow, NodePut(node=node))
    needs = Needs(nodes=frozenset({KEY, NodeKey("a", (1,))}), steps=frozenset({KEY}))
    found = house.slice(flow, needs)
    assert found.nodes[NodeKey("a", (1,))] is None
    assert found.steps[KEY] is None
    assert found.nodes[KEY] is not None
    assert dict(found.nodes[KEY].memory) == {"choice": 1, "seen": [1, 2]}


def test_what_a_slice_knows_already_stays(house: House) -> None:
    flow = house.instance()
    house.write(flow, StatePut(name="k", value="stored"), StatePut(name="other", value=1))
    with house.store.transaction() as tx:
        current = Slice(plan=Plan(definition_of([step("a")])), instance=flow)
        current.state["k"] = "decided"
        current.context = ContextPut(data="decided", config=None)
        tx.fill([(current, Needs(whole_state=True, context=True, state=frozenset({"gone"})))])
    assert current.state == {"k": "decided", "other": 1, "gone": ABSENT}
    assert current.context.data == "decided"


def test_open_work_is_every_open_step_and_every_composite_that_has_not_ended(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow)
    nodes = {state: Node(key=NodeKey(state.value), state=state) for state in NodeState}
    house.write(flow, *(NodePut(node=node) for node in nodes.values()))
    found = house.slice(flow, Needs(open_work=True))
    assert found.steps == {KEY: ready}
    assert {key.block_id for key in found.nodes} == {"running", "waiting"}
    assert found.open_work
    assert {key.block_id for key in house.slice(flow, Needs(ended_badly=True)).nodes} == {"failed", "cancelled"}


def test_items_of_a_for_each_are_loaded_ahead_but_not_back(house: House) -> None:
    flow = house.instance()
    house.write(flow, ItemsCaptured(key=KEY, items=tuple(range(30))))
    found = house.slice(flow, Needs(items=frozenset({ItemKey(KEY, 3)}))).items
    assert found == {ItemKey(KEY, position): position for position in range(3, 23)}


def test_items_that_are_asked_for_together_are_loaded_of_each_for_each(house: House) -> None:
    first, second = house.instance(), house.instance()
    inner = NodeKey("b", (1,))
    house.write(first, ItemsCaptured(key=KEY, items=tuple(range(30))), ItemsCaptured(key=inner, items=("x", "y", "z")))
    house.write(second, ItemsCaptured(key=KEY, items=("other", "one")))
    own = frozenset({ItemKey(KEY, 3), ItemKey(KEY, 29), ItemKey(KEY, 30)})
    found = house.slice(first, Needs(items=own)).items
    assert {key: found[key] for key in own & found.keys()} == {ItemKey(KEY, 3): 3, ItemKey(KEY, 29): 29}
    both = own | {ItemKey(inner, 0), ItemKey(inner, 2)}
    found = house.slice(first, Needs(items=both)).items
    assert {found[key] for key in both & found.keys()} == {3, 29, "x", "z"}


def test_state_values_come_and_go(house: House) -> None:
    flow = house.instance()
    house.write(flow, StatePut(name="k", value={"deep": [1, None]}), StatePut(name="gone", value=1))
    house.write(flow, StatePut(name="k", value=2), StateGone(name="gone"), StateGone(name="never"))
    with house.store.transaction() as tx:
        assert tx.state_values(flow.id) == {"k": 2}
        assert tx.state_values(uuid4()) == {}


def test_s9_4_signals_are_kept_in_order_until_they_are_consumed(house: House) -> None:
    flow = house.instance()
    signals = [KeptSignal(id=output(0, at=house.now()).id, name=name, payload={"n": name}) for name in ("b", None, "c")]
    house.write(flow, *(SignalKept(signal=signal) for signal in signals))
    house.write(flow, SignalConsumed(id=signals[0].id), SignalConsumed(id=uuid4()))
    assert house.slice(flow, Needs(signals=True)).kept_signals() == (signals[1], signals[2])


def test_injections_are_read_in_order(house: House) -> None:
    flow, other = house.instance(), house.instance()
    made = [Injection(number=n, blocks=parse_blocks([step(f"b{n}")]), before=None) for n in (1, 0)]
    house.write(flow, *(InjectionAdded(injection=injection) for injection in made))
    with house.store.transaction() as tx:
        assert tx.load_injections([flow.id, other.id, uuid4()]) == {flow.id: [made[1], made[0]]}


def test_s9_8_forgotten_blocks_leave_no_rows_and_may_be_written_anew(house: House) -> None:
    flow, now, other = house.instance(), house.now(), NodeKey("b")
    item = ItemKey(KEY, 0)
    house.write(
        flow,
        *(NodePut(node=Node(key=key, state=NodeState.COMPLETED)) for key in (KEY, other)),
        ItemsCaptured(key=KEY, items=("old",)),
        *(output("old", at=now, key=key) for key in (KEY, KEY, other)),
    )
    needs = Needs(rows_of=frozenset({"a", "b", "c"}), nodes=frozenset({KEY, other}), outputs=frozenset({NEWEST}))
    assert house.slice(flow, needs).row_counts == {"a": 2, "b": 1, "c": 0}
    again = Node(key=KEY, state=NodeState.RUNNING)
    house.write(flow, BlocksForgotten(blocks=("a",), rows=2), NodePut(node=again), ItemsCaptured(key=KEY, items=("n",)))
    found = house.slice(flow, replace(needs, items=frozenset({item})))
    assert found.row_counts == {"a": 0, "b": 1, "c": 0}
    assert (found.nodes[KEY], found.nodes[other].state) == (again, NodeState.COMPLETED)
    assert (found.outputs[NEWEST], found.items[item]) == (ABSENT, "n")


def test_s9_9_copy_has_the_ended_rows_of_some_blocks_the_state_and_the_injections(house: House) -> None:
    source, now = house.instance(), house.now()
    copy = house.instance()
    open_key, other = NodeKey("a", (1,)), NodeKey("b")
    ended = Node(key=KEY, state=NodeState.COMPLETED, completed_at=now)
    injection = Injection(number=0, blocks=parse_blocks([step("i")]), before=None)
    house.write(
        source,
        *(NodePut(node=replace(ended, key=key)) for key in (KEY, other)),
        NodePut(node=Node(key=open_key, state=NodeState.RUNNING)),
        ItemsCaptured(key=KEY, items=("x",)),
        *(output(value, at=now) for value in ("first", "second")),
        output("beside", at=now, lane=(BESIDE,)),
        output("failed", at=now, ref="__error__"),
        output("other", at=now, key=other),
        StatePut(name="k", value=1),
        InjectionAdded(injection=injection),
    )
    with house.store.transaction() as tx:
        tx.copy_rows(source.id, copy.id, ["a"], house.new_id_at(now))
        assert tx.state_values(copy.id) == {"k": 1}
        assert [each.number for each in tx.load_injections([copy.id])[copy.id]] == [0]
    found = house.slice(
        copy,
        Needs(
            nodes=frozenset({KEY, open_key, other}),
            outputs=frozenset({NEWEST}),
            items=frozenset({ItemKey(KEY, 0)}),
            rows_of=frozenset({"a", "b"}),
        ),
    )
    assert found.nodes == {KEY: ended, open_key: None, other: None}
    assert (found.outputs[NEWEST], found.items[ItemKey(KEY, 0)]) == ("second", "x")
    assert found.row_counts == {"a": 2, "b": 0}
    assert house.slice(source, Needs(rows_of=frozenset({"a"}))).row_counts == {"a": 4}
