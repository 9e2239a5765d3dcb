"""Going on from a root block (sections 9.8, 9.7), in flows of every state."""

import pytest

from orchestrator.errors import InvalidArgument, PayloadTooLarge
from tests.support.drive import World, ext, fail, for_each, gate, loop, parallel, say, step, try_catch


def done(world: World):
    return world.start([say("a", 1), say("b", "{{ outputs.a }}"), say("c", "{{ outputs.b }}")]).run()


def test_s9_8_completed_flow_runs_the_block_and_all_behind_it_again(world: World) -> None:
    flow = done(world)
    first, run_id = flow.rows(), flow.instance.run_id
    assert flow.resume_from("b") == 2
    assert flow.check().state == "running"
    assert flow.row_ids() == ["a"]
    assert flow.run().check().state == "completed"
    assert flow.rows() == first
    assert flow.executed() == ["a", "b", "c", "b", "c"]
    assert flow.tree() == dict.fromkeys("abc", "completed")
    assert flow.instance.run_id != run_id
    assert ("completed", "scheduled") in world.moves(flow.id)


def test_s9_8_first_block_runs_the_whole_flow_again_any_number_of_times(world: World) -> None:
    flow = done(world)
    for _ in range(3):
        assert flow.resume_from("a") == 3
        assert flow.run().check().row_ids() == ["a", "b", "c"]


def test_s9_8_context_is_merged_into_the_data_and_state_is_kept(world: World) -> None:
    flow = world.start(
        [step("k", "set_state", {"key": "k", "value": 1}), say("b", "{{ context.data.n }}:{{ state.k }}")],
        data={"n": 1, "m": 2},
    ).run()
    flow.resume_from("b", n=7)
    assert flow.run().output("b") == {"message": "7:1"}
    assert flow.data == {"n": 7, "m": 2}


def test_s9_8_context_that_is_too_large_is_refused_and_changes_nothing(world: World) -> None:
    flow = done(world)
    with pytest.raises(PayloadTooLarge):
        flow.resume_from("b", big="x" * 300_000)
    assert flow.check().state == "completed"
    assert flow.row_ids() == ["a", "b", "c"]


def test_s9_8_failed_block_in_front_is_skipped_and_its_error_row_goes(world: World) -> None:
    flow = world.start([say("a", 1), fail("b"), say("c", 2), say("d", 3)]).run()
    assert flow.state == "failed"
    assert flow.resume_from("d") == 0
    assert flow.run().check().state == "completed"
    assert flow.row_ids() == ["a", "d"]
    assert flow.tree() == {"a": "completed", "b": "skipped", "c": "skipped", "d": "completed"}


def test_s9_8_failed_flow_resumed_at_its_failure_counts_the_error_row(world: World) -> None:
    flow = world.start([say("a", 1), fail("b")]).run()
    assert flow.resume_from("b") == 1
    assert flow.run().check().state == "failed"
    assert flow.row_ids() == ["a", "b"]


def test_s9_8_resume_in_the_middle_of_a_cancelled_composite_starts_it_anew(world: World) -> None:
    flow = world.start(
        [for_each("f", "data.xs", [say("x", "{{ item }}"), ext("w")]), say("z", 1)], data={"xs": [1, 2]}
    ).run()
    flow.complete("w")
    flow.run().cancel()
    assert flow.check().state == "cancelled"
    rows = len(flow.rows())
    assert flow.resume_from("f") == rows >= 3
    assert flow.check().row_ids() == []
    flow.run()
    flow.complete("w")
    flow.run().complete("w")
    assert flow.run().check().state == "completed"
    assert [row.block_id for row in flow.rows()] == ["x", "w", "f", "x", "w", "f", "z"]


def test_s9_8_composites_behind_the_block_are_forgotten_at_every_depth(world: World) -> None:
    inner = loop(
        "l",
        [try_catch("t", [parallel("p", [say("x", 1)], [say("y", 2)]), fail("boom")], [say("h", 3)])],
        max_iterations=2,
    )
    flow = world.start([say("a", 1), inner, say("z", 2)]).run()
    before = flow.row_ids()
    assert flow.resume_from("l") == len(before) - 1
    assert flow.check().run().check().state == "completed"
    assert sorted(flow.row_ids()) == sorted(before)


def test_s9_8_outputs_of_forgotten_blocks_are_not_read(world: World) -> None:
    flow = world.start([say("a", "{{ outputs.b.message | default('none') }}"), say("b", 5)]).run()
    flow.resume_from("a")
    assert flow.run().output("a") == {"message": "none"}


def test_s9_8_paused_flow_with_open_work_is_resumed_elsewhere(world: World) -> None:
    flow = world.start([say("a", 1), step("s", "sleep", {"duration_ms": 60_000}), say("b", 2)]).run().pause()
    assert flow.state == "paused"
    assert flow.resume_from("b") == 0
    assert flow.run().check().state == "completed"
    assert flow.row_ids() == ["a", "b"]
    assert flow.tree() == {"a": "completed", "s": "skipped", "b": "completed"}


def test_s9_8_paused_flow_that_has_not_started_is_resumed(world: World) -> None:
    flow = world.start([say("a", 1), say("b", 2)], not_before=world.now().replace(year=2099)).pause()
    flow.resume_from("b")
    assert flow.run().check().row_ids() == ["b"]


def test_s9_8_child_of_a_forgotten_block_is_told_to_end(world: World) -> None:
    world.define("kid", [ext("w")])
    flow = world.start([{"type": "sub_sequence", "id": "s", "sequence_name": "kid"}, say("b", 1)]).run()
    flow.cancel()
    assert flow.state == "cancelled"
    flow.resume_from("s")
    assert [child.state for child in flow.children()] == ["cancelled", "waiting"]
    flow.children()[1].complete("w")
    assert flow.run().check().state == "completed"


def test_s9_8_injected_blocks_are_run_again_like_others(world: World) -> None:
    flow = world.start([say("a", 1), ext("w")]).run()
    flow.inject(say("x", 2), parallel("p", [say("y", 3)]))
    flow.complete("w")
    assert flow.run().row_ids() == ["a", "w", "x", "y"]
    assert flow.resume_from("x") == 2
    assert flow.run().check().row_ids() == ["a", "w", "x", "y"]
    assert flow.resume_from("p") == 1
    assert flow.run().check().row_ids() == ["a", "w", "x", "y"]


def test_s9_8_signals_are_delivered_before_the_block(world: World) -> None:
    flow = world.start([say("a", 1), gate("g"), say("b", "{{ context.data.n }}", when="n == 2")], data={"n": 1})
    flow.run().answer("g").run()
    assert flow.tree()["b"] == "skipped"
    update = {"signal_type": "update_context", "payload": {"data": {"n": 2}}}
    flow.resume_from("g", update, {"signal_type": {"custom": "human_input:g"}, "payload": {"value": "yes"}})
    assert flow.run().check().output("b") == {"message": 2}


def test_s9_8_pause_and_resume_among_the_signals(world: World) -> None:
    flow = done(world)
    flow.resume_from("b", "pause")
    assert flow.check().run().state == "paused"
    assert flow.row_ids() == ["a"]
    assert flow.resume().run().check().row_ids() == ["a", "b", "c"]
    flow.resume_from("b", "pause", "resume")
    assert flow.run().check().state == "completed"


def test_s9_8_cancel_among_the_signals_ends_the_flow_with_nothing_run(world: World) -> None:
    flow = done(world)
    flow.resume_from("b", "cancel", "pause")
    assert flow.check().run().state == "cancelled"
    assert flow.row_ids() == ["a"]
    flow.resume_from("b")
    assert flow.run().check().row_ids() == ["a", "b", "c"]


def test_s9_8_living_flow_and_other_blocks_are_refused(world: World) -> None:
    flow = world.start([parallel("p", [ext("w")])]).run()
    with pytest.raises(InvalidArgument, match="current state: waiting"):
        flow.resume_from("p")
    flow.complete("w")
    for block_id in ("w", "nobody"):
        with pytest.raises(InvalidArgument, match="not a root block"):
            flow.resume_from(block_id)
    assert flow.check().state == "completed"


def test_s9_8_late_report_of_the_former_round_is_dropped(world: World) -> None:
    flow = world.start([ext("w"), say("b", 1)])
    claim = flow.claim("w")
    flow.cancel()
    flow.resume_from("w")
    world.finish([(claim, world.outcome(world.work(claim)))])
    assert flow.check().state == "waiting"
    flow.complete("w")
    assert flow.run().row_ids() == ["w", "b"]


def test_s9_7_retry_after_a_resume_fails_and_goes_on_where_it_failed(world: World) -> None:
    flow = world.start([fail("a"), say("b", 1), ext("w"), say("z", 1)]).run()
    flow.resume_from("b")
    flow.run().fail("w")
    assert flow.state == "failed"
    flow.retry().run().complete("w")
    assert flow.run().check().row_ids() == ["b", "w", "z"]
    assert flow.tree()["a"] == "skipped"


def test_s9_7_rows_stay_exact_over_many_retries_at_depth_and_with_injected_blocks(world: World) -> None:
    body = [say("x", "{{ item }}"), parallel("p", [say("l", 1)], [say("r", 2), ext("w")])]
    flow = world.start(
        [say("a", 1), loop("o", [for_each("f", "data.xs", body)], max_iterations=1), say("z", 1)], data={"xs": [1, 2]}
    )
    flow.inject(try_catch("t", [say("i", 1)], [], [ext("v")]))
    for _ in range(4):
        flow.run().fail("w")
        assert flow.run().check().state == "failed"
        assert sorted(flow.row_ids()) == ["a", "l", "r", "x"]
        flow.retry()
    flow.run().complete("w")
    flow.run().complete("w")
    for _ in range(3):
        flow.run().fail("v")
        assert flow.run().check().state == "failed"
        assert flow.row_ids().count("i") == 1
        flow.retry()
    flow.run().complete("v")
    assert flow.run().check().state == "completed"
    counts = {block_id: flow.row_ids().count(block_id) for block_id in set(flow.row_ids())}
    assert counts == {"a": 1, "x": 2, "l": 2, "r": 2, "w": 2, "f": 2, "o": 1, "z": 1, "i": 1, "v": 1}
    assert flow.executed().count("x") == 2
