"""The tree: what blocks without a row read as (sequences contract §10)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from orchestrator.core import tree
from orchestrator.core.plan import Plan
from orchestrator.core.states import InstanceState
from orchestrator.core.tree import Entry, node_entry, step_entry
from sequences.document import parse_definition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = UUID(int=1)


def step(block_id: str) -> dict[str, Any]:
    return {"type": "step", "id": block_id, "handler": "noop"}


def loop(block_id: str, *body: dict[str, Any]) -> dict[str, Any]:
    return {"type": "loop", "id": block_id, "condition": "true", "body": list(body)}


def try_catch(block_id: str) -> dict[str, Any]:
    return {
        "type": "try_catch",
        "id": block_id,
        "try_block": [step("try"), step("try_2")],
        "catch_block": [step("catch")],
        "finally_block": [step("finally")],
    }


def plan(*blocks: dict[str, Any]) -> Plan:
    document = {
        "id": str(ID),
        "tenant_id": "t",
        "namespace": "n",
        "name": "s",
        "version": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "blocks": list(blocks),
    }
    return Plan(parse_definition(document))


def node(block_id: str, state: str, *iteration: int, **memory: Any) -> Entry:
    return node_entry(block_id, iteration, state, NOW, NOW, memory or None)


def waiting(block_id: str, *iteration: int, state: str = "ready", activity: str = "waiting") -> Entry:
    return step_entry(block_id, iteration, state, activity, NOW)


def states(of: Plan, state: str, *entries: Entry) -> dict[str, str]:
    return {shown["block_id"]: shown["state"] for shown in tree.build(of, ID, InstanceState(state), entries)}


def test_blocks_to_come_are_pending_and_after_a_failure_cancelled():
    flow = plan(step("a"), step("b"), step("c"))
    assert states(flow, "waiting", node("a", "completed"), waiting("b")) == {
        "a": "completed",
        "b": "waiting",
        "c": "pending",
    }
    assert states(flow, "failed", node("a", "completed"), node("b", "failed")) == {
        "a": "completed",
        "b": "failed",
        "c": "cancelled",
    }


@pytest.mark.parametrize(
    ("state", "activity", "shown"),
    [
        ("delayed", "scheduled", "pending"),
        ("window", "scheduled", "pending"),
        ("held", "scheduled", "pending"),
        ("backoff", "scheduled", "waiting"),
        ("gate", "waiting", "waiting"),
        ("ready", "waiting", "waiting"),
        ("claimed", "waiting", "waiting"),
        ("ready", "running", "running"),
        ("claimed", "running", "running"),
        ("asleep", "running", "running"),
    ],
)
def test_states_of_open_steps(state: str, activity: str, shown: str):
    entry = waiting("a", state=state, activity=activity)
    assert states(plan(step("a")), "running", entry) == {"a": shown}
    assert entry.started_at == (None if shown == "pending" else NOW)


@pytest.mark.parametrize(
    ("state", "shown"), [("completed", "skipped"), ("failed", "cancelled"), ("cancelled", "cancelled")]
)
def test_nothing_is_open_after_the_end(state: str, shown: str):
    flow = plan(step("a"), loop("l", step("x")))
    assert states(flow, state) == {"a": shown, "l": shown, "x": shown}
    assert states(flow, state, waiting("a"))["a"] == "cancelled"


def test_unselected_routes_are_skipped_from_the_start():
    flow = plan(
        {
            "type": "router",
            "id": "r",
            "routes": [{"condition": "x", "blocks": [step("a"), loop("l", step("b"))]}],
            "default": [step("d"), step("e")],
        }
    )
    assert states(flow, "waiting", node("r", "running", choice=1), waiting("d")) == {
        "r": "running",
        "a": "skipped",
        "l": "skipped",
        "b": "skipped",
        "d": "waiting",
        "e": "pending",
    }
    assert set(states(flow, "completed", node("r", "completed", choice=None)).values()) == {"completed", "skipped"}


def test_parallel_branches_break_on_their_own():
    flow = plan({"type": "parallel", "id": "p", "branches": [[step("a"), step("b")], [step("c"), step("d")]]})
    assert states(flow, "waiting", node("p", "running", open=1), node("a", "failed"), waiting("c")) == {
        "p": "running",
        "a": "failed",
        "b": "cancelled",
        "c": "waiting",
        "d": "pending",
    }


@pytest.mark.parametrize(
    ("memory", "state", "entries", "expected"),
    [
        ({"phase": "try", "origin": "try"}, "running", [waiting("try")], ("waiting", "pending", "pending", "pending")),
        (
            {"phase": "finally", "origin": "try"},
            "running",
            [node("try", "completed"), node("try_2", "completed"), waiting("finally")],
            ("completed", "completed", "skipped", "waiting"),
        ),
        (
            {"phase": "catch", "origin": "catch"},
            "running",
            [node("try", "failed"), waiting("catch")],
            ("failed", "cancelled", "waiting", "pending"),
        ),
        (
            {"phase": "finally", "origin": "catch"},
            "completed",
            [node("try", "failed"), node("catch", "completed"), node("finally", "completed")],
            ("failed", "cancelled", "completed", "completed"),
        ),
        (
            {"phase": "finally", "origin": "try"},
            "cancelled",
            [node("try", "cancelled"), node("finally", "completed")],
            ("cancelled", "cancelled", "skipped", "completed"),
        ),
    ],
)
def test_try_catch(memory: Any, state: str, entries: Any, expected: Any):
    shown = states(plan(try_catch("t")), "running", node("t", state, **memory), *entries)
    assert (shown["try"], shown["try_2"], shown["catch"], shown["finally"]) == expected


def test_a_loop_shows_its_newest_iteration():
    flow = plan(loop("l", step("a"), step("b")))
    running = [node("l", "running", n=2), waiting("a", 2), node("b", "completed", 1)]
    assert states(flow, "waiting", *running) == {"l": "running", "a": "waiting", "b": "pending"}
    between = [node("l", "running", n=2, polling=True), node("a", "completed", 1), node("b", "completed", 1)]
    assert states(flow, "scheduled", *between) == {"l": "running", "a": "completed", "b": "completed"}
    done = [node("l", "completed", n=2), node("a", "completed", 1), node("b", "skipped", 1)]
    assert states(flow, "completed", *done) == {"l": "completed", "a": "completed", "b": "skipped"}


def test_inner_loops_begin_anew_in_each_outer_iteration():
    flow = plan(loop("outer", step("first"), loop("inner", step("a"))))
    entries = [
        node("outer", "running", n=1),
        waiting("first", 1),
        node("inner", "completed", 0, n=3),
        node("a", "completed", 0, 2),
    ]
    assert states(flow, "waiting", *entries) == {
        "outer": "running",
        "first": "waiting",
        "inner": "pending",
        "a": "pending",
    }


def test_a_body_that_never_ran_is_skipped():
    flow = plan(loop("l", step("a"), {"type": "parallel", "id": "p", "branches": [[step("b")]]}))
    assert set(states(flow, "completed", node("l", "completed", n=0)).values()) == {"completed", "skipped"}


def test_concurrent_items_show_the_one_started_last():
    flow = plan({"type": "for_each", "id": "f", "collection": "x", "concurrency": 2, "body": [step("a"), step("b")]})
    entries = [node("f", "running", next=2), waiting("a", 1), waiting("b", 0)]
    assert states(flow, "waiting", *entries) == {"f": "running", "a": "waiting", "b": "pending"}


def test_branch_indexes_parents_and_order():
    flow = plan(step("root"), try_catch("t"), loop("l", step("body")))
    nodes = tree.build(flow, ID, InstanceState.SCHEDULED, ())
    assert [shown["block_id"] for shown in nodes] == ["root", "t", "try", "try_2", "catch", "finally", "l", "body"]
    assert [shown["branch_index"] for shown in nodes] == [None, None, 0, 0, 1, 2, None, None]
    ids = {shown["block_id"]: shown["id"] for shown in nodes}
    assert len(set(ids.values())) == len(nodes)
    parents = {shown["block_id"]: shown["parent_id"] for shown in nodes}
    assert (parents["root"], parents["try"], parents["body"]) == (None, ids["t"], ids["l"])
