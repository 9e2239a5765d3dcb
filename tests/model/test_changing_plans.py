"""Whatever the moment at which a flow's plan changes, no step that has ended runs again and every flow ends."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.drive import Flow, PureWorld, fail, for_each, loop, parallel, step, try_catch

NAP = {"duration_ms": 1000}


def saga(block_id: str, *actions: Any) -> dict[str, Any]:
    steps = [{"id": f"s-{a['id']}", "action": a, "compensation": step(f"undo-{a['id']}")} for a in actions]
    return {"type": "saga", "id": block_id, "steps": steps}


def race(block_id: str, *branches: Any) -> dict[str, Any]:
    return {"type": "race", "id": block_id, "branches": list(branches)}


BLOCKS: list[dict[str, Any]] = [
    step("a"),
    step("nap", "sleep", NAP),
    step("late", delay={"duration": 500}),
    parallel("p", [step("p1"), step("p2", "sleep", NAP)], [step("p3", "sleep", NAP), step("p4")]),
    loop("l", [step("l1"), step("l2", "sleep", NAP)], max_iterations=3),
    for_each("f", "items", [step("f1", "sleep", NAP), step("f2")], concurrency=2),
    try_catch("t", [step("t1"), fail("t2")], [step("t3", "sleep", NAP), step("t4")], [step("t5", "sleep", NAP)]),
    try_catch("ts", [saga("s", step("s1"), step("s2", "sleep", NAP), fail("s3"))]),
    race("r", [step("r1", "sleep", NAP), step("r2")], [step("r3", "sleep", {"duration_ms": 5000}), step("r4")]),
    step("z"),
]
DEFINITIONS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5, unique_by=lambda block: block["id"])


def flow_of(blocks: list[dict[str, Any]]) -> Flow:
    return PureWorld().start(blocks, data={"items": [1, 2, 3]})


def advance(flow: Flow, moves: int) -> None:
    """Make some moves: run a step that is ready, else let time pass. A claimed step may be left in hand."""
    for _ in range(moves):
        if flow.instance.state.is_terminal:
            return
        ready = flow.ready()
        if ready:
            flow.execute(ready[0])
        else:
            flow.pass_time()
        flow.check()


def check_end(flow: Flow) -> None:
    flow.settle()
    assert flow.check().state == "completed"
    executed = Counter((block_id, iteration) for block_id, iteration, _ in flow.world.executed)
    assert not [key for key, times in executed.items() if times > 1]
    rows = Counter((row.block_id, row.iteration) for row in flow.rows() if row.block_id not in {"l", "f"})
    assert not [key for key, times in rows.items() if times > 1]


@settings(max_examples=150, deadline=None)
@given(first=DEFINITIONS, others=st.lists(st.tuples(st.integers(0, 12), DEFINITIONS), min_size=1, max_size=3))
def test_s1_no_moment_of_a_migration_makes_a_step_run_twice(first: list[Any], others: list[Any]) -> None:
    flow = flow_of(first)
    for moves, blocks in others:
        advance(flow, moves)
        if flow.instance.state.is_terminal:
            break
        flow.migrate(*blocks)
        flow.check()
    check_end(flow)


@settings(max_examples=100, deadline=None)
@given(
    first=DEFINITIONS,
    injected=st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 6)), min_size=1, max_size=4),
)
def test_s9_10_no_moment_of_an_injection_loses_or_repeats_a_step(first: list[Any], injected: list[Any]) -> None:
    flow = flow_of(first)
    for number, (moves, position) in enumerate(injected):
        advance(flow, moves)
        flow.inject(parallel(f"in{number}", [step(f"in{number}-a")], [step(f"in{number}-b")]), position=position)
        flow.check()
    if flow.instance.state.is_terminal:
        flow.force("scheduled")
    check_end(flow)
    executed = {block_id for block_id, _, _ in flow.world.executed}
    assert {f"in{number}-{side}" for number in range(len(injected)) for side in "ab"} <= executed
