"""Sections 3.1 and 3.2: the root list, and branches side by side."""

import pytest

from tests.support.drive import World, ext, fail, loop, parallel, say, step, try_catch

# -- 3.1 root list ---------------------------------------------------------------------------------------------------


def test_s3_1_root_blocks_run_one_after_another(world: World) -> None:
    flow = world.start([ext("a"), ext("b"), ext("c")])
    for block_id in "abc":
        assert flow.check().standing() == {block_id: "ready"}
        flow.complete(block_id)
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "b", "c"])


def test_s3_1_failed_root_block_fails_the_flow_and_cancels_the_rest(world: World) -> None:
    flow = world.start([step("a"), fail("b"), step("c"), parallel("p", [step("d")])]).run()
    assert flow.check().state == "failed"
    assert flow.tree() == {"a": "completed", "b": "failed", "c": "cancelled", "p": "cancelled", "d": "cancelled"}
    assert flow.row_ids() == ["a", "b"]


def test_s3_1_failure_outranks_cancellation(world: World) -> None:
    flow = world.start([parallel("p", [ext("a", cancellable=False)], [ext("b")])])
    flow.cancel()
    assert flow.check().state == "waiting"
    flow.fail("a")
    assert flow.check().state == "failed"


# -- 3.2 parallel ----------------------------------------------------------------------------------------------------


def test_s3_2_branches_sleep_at_the_same_time(world: World) -> None:
    naps = [[step(f"s{n}", "sleep", {"duration_ms": 1000})] for n in range(3)]
    flow = world.start([parallel("p", *naps)]).run()
    assert (flow.check().state, set(flow.standing().values())) == ("running", {"asleep"})
    due = sorted(s.wake_at for s in flow.steps())
    assert (due[-1] - due[0]).total_seconds() < 0.5
    assert flow.settle().state == "completed"


def test_s3_2_waits_only_when_every_branch_has_got_as_far_as_it_can(world: World) -> None:
    flow = world.start([parallel("p", [step("a"), ext("x")], [step("b"), step("c"), ext("y")])])
    states = []
    flow.run(between=lambda: states.append(flow.state))
    assert states[-1] == "waiting"
    assert set(states[:-1]) == {"running"}
    assert flow.standing() == {"x": "ready", "y": "ready"}


def test_s3_2_wait_all_runs_every_branch_after_a_failure(world: World) -> None:
    flow = world.start([parallel("p", [fail("f"), step("never")], [ext("x"), step("y")]), step("z")]).run()
    assert flow.check().state == "waiting"
    flow.complete("x")
    flow.run()
    assert flow.check().state == "failed"
    assert flow.row_ids() == ["x", "y"]
    tree = flow.tree()
    assert (tree["p"], tree["f"], tree["never"], tree["y"], tree["z"]) == (
        "failed",
        "failed",
        "cancelled",
        "completed",
        "cancelled",
    )


def test_s3_2_fail_fast_cancels_the_other_branches(world: World) -> None:
    flow = world.start([parallel("p", [ext("f")], [ext("x"), step("y")], failure_policy="fail_fast")])
    claim = flow.claim("x")
    flow.fail("f")
    assert (flow.check().state, flow.standing()) == ("failed", {})
    assert flow.tree()["x"] == "cancelled"
    flow.complete_late = world.finish([(claim, world.outcome(world.work(claim)))])
    assert (flow.check().state, flow.row_ids()) == ("failed", [])


@pytest.mark.parametrize("branches", [[[]], [[], []], [[], [step("a")]]])
def test_s3_2_empty_branches_are_complete(world: World, branches) -> None:
    flow = world.start([parallel("p", *branches)]).run()
    assert flow.check().state == "completed"
    assert flow.tree()["p"] == "completed"


def test_s3_2_all_nodes_of_a_finished_parallel_have_ended(world: World) -> None:
    inner = parallel("q", [fail("f")], [say("a", 1)])
    flow = world.start([try_catch("t", [parallel("p", [inner, step("b")], [loop("l", [step("c")], "false")])], [])])
    flow.run()
    assert flow.check().state == "completed"
    assert set(flow.tree().values()) <= {"completed", "failed", "cancelled", "skipped"}
    assert flow.tree()["b"] == "cancelled"
