"""Sections 3.4 and 3.5: how many rows loops and for_eachs keep, and how often they may turn."""

import pytest

from orchestrator.core.composites import nodes
from tests.support.drive import Flow, World, ext, for_each, loop, say, step


def iterations_of(flow: Flow, block_id: str) -> list[tuple[int, ...]]:
    return [row.iteration for row in flow.rows(block_id)]


@pytest.mark.parametrize("carry", [False, True])
def test_s3_4_retain_iterations_keeps_the_newest_rows_of_each_body_block(world: World, *, carry: bool) -> None:
    body = [step("a"), say("b", "{{ outputs.a }}")]
    flow = world.start([loop("l", body, "iteration < 5", retain_iterations=2), step("z")])
    flow.run(carry=carry)
    assert flow.check().state == "completed"
    assert iterations_of(flow, "a") == [(3,), (4,)]
    assert iterations_of(flow, "b") == [(3,), (4,)]
    assert [output["_iterations"] for output in flow.outputs("l")] == [1, 2, 3, 4, 5]


def test_s3_4_row_of_a_block_that_ran_once_is_kept_for_later_iterations(world: World) -> None:
    body = [step("once", when="!data.seen"), ext("a"), say("b", "{{ outputs.once }}")]
    flow = world.start([loop("l", body, "iteration < 4", retain_iterations=1)])
    for _ in range(4):
        flow.run(between=world.restart)
        flow.complete("a", {"seen": True})
    assert flow.run().check().state == "completed"
    assert (iterations_of(flow, "once"), iterations_of(flow, "b")) == ([(0,)], [(3,)])
    assert flow.output("b") == {"message": {}}


def test_s3_4_retaining_loop_trims_what_is_nested_in_its_body(world: World) -> None:
    inner = for_each("e", "items", [step("a")], concurrency=2)
    flow = world.start([loop("l", [inner, step("b")], "iteration < 3", retain_iterations=3)], data={"items": [1, 2]})
    assert flow.run().check().state == "completed"
    counts = {block_id: len(flow.rows(block_id)) for block_id in ("a", "b", "e", "l")}
    assert counts == {"a": 3, "b": 3, "e": 3, "l": 3}


def test_s3_5_retain_iterations_keeps_rows_of_items_in_progress(world: World) -> None:
    body = [step("a"), ext("x"), say("b", "{{ outputs.a }}")]
    flow = world.start([for_each("e", "items", body, concurrency=2, retain_iterations=1)], data={"items": [1, 2, 3, 4]})
    flow.run()
    for _ in range(3):
        flow.complete("x", index=1)  # the first item stays in progress
        flow.run()
    assert iterations_of(flow, "a") == [(0,), (1,), (2,), (3,)]
    flow.complete("x")
    assert flow.run().check().state == "completed"
    assert (len(flow.rows("a")), len(flow.rows("x")), flow.output("b")) == (1, 1, {"message": {}})


def test_s3_5_retain_iterations_of_items_one_after_another(world: World) -> None:
    flow = world.start(
        [for_each("e", "items", [say("a", "{{ item }}")], retain_iterations=2)], data={"items": [1, 2, 3]}
    )
    assert flow.run().check().state == "completed"
    assert flow.outputs("a") == [{"message": 2}, {"message": 3}]


def test_s9_7_retry_of_a_retaining_loop_keeps_what_it_reads(world: World) -> None:
    body = [step("a"), ext("x"), say("b", "{{ outputs.a }}")]
    flow = world.start([loop("l", body, "iteration < 3", retain_iterations=1)]).run()
    flow.complete("x")
    flow.run().fail("x")
    flow.retry()
    assert flow.check().standing() == {"x": "ready"}
    flow.complete("x")
    flow.run().complete("x")
    assert flow.run().check().state == "completed"
    assert (iterations_of(flow, "a"), flow.output("b")) == ([(2,)], {"message": {}})


def test_s3_4_ceiling_over_all_iterations_fails_a_flow_that_has_run_wild(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "MAX_ITERATIONS", 7)
    inner = for_each("e", "items", [step("a")])
    flow = world.start([loop("l", [inner], "iteration < 9")], data={"items": [1, 2]})
    flow.run(between=world.restart)
    assert (flow.check().state, len(flow.rows("a"))) == ("failed", 4)
    assert (flow.tree()["l"], flow.tree()["e"], flow.tree()["a"]) == ("failed", "failed", "failed")
    flow.retry()
    assert flow.run().check().state == "failed"
    assert len(flow.rows("a")) > 4
