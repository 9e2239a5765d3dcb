"""Flows that go over to another definition while they live: section 1, Migration; 5.9.

The former definition is deleted right after, and nothing is left in memory: whatever a flow still needs is its own.
"""

import pytest

from orchestrator.errors import InvalidArgument
from tests.support.drive import (
    RETRY,
    Completed,
    Failed,
    Flow,
    World,
    ext,
    fail,
    for_each,
    gate,
    loop,
    parallel,
    router,
    saga,
    say,
    scope,
    step,
    try_catch,
)

NAP = step("nap", "sleep", {"duration_ms": 60_000})


def finished(flow: Flow) -> list[str]:
    """Run to the end; the rows."""
    flow.settle()
    assert flow.check().state == "completed"
    return flow.row_ids()


# -- the running step ------------------------------------------------------------------------------------------------


def test_s1_running_step_ends_and_the_flow_goes_on_at_the_first_block_without_a_row(world: World) -> None:
    flow = world.start([step("a"), ext("w"), step("b")]).run()
    claim = flow.claim("w")
    flow.migrate(step("a"), ext("w"), step("x"), step("b"))
    assert flow.check().state == "waiting"
    flow.finish(claim, Completed(output={"n": 1}, merges=True))
    assert finished(flow) == ["a", "w", "x", "b"]
    assert flow.data == {"n": 1}


def test_s1_running_step_that_the_new_definition_has_not_leaves_its_row(world: World) -> None:
    flow = world.start([step("a"), ext("w"), step("b")]).run()
    claim = flow.claim("w")
    flow.migrate(step("x"), say("c", "{{ outputs.w.n }}"))
    assert flow.run().check().row_ids() == ["a"]
    flow.finish(claim, Completed(output={"n": 1}))
    assert finished(flow) == ["a", "w", "x", "c"]
    assert flow.output("c") == {"message": 1}


def test_s1_sleeping_step_wakes_and_the_new_blocks_follow(world: World) -> None:
    flow = world.start([NAP, step("b")]).run()
    flow.migrate(step("x"), step("y"))
    assert flow.check().state == "running"
    assert flow.row_ids() == []
    assert finished(flow) == ["nap", "x", "y"]
    assert flow.output("nap") == {"slept_ms": 60_000}


def test_s1_new_block_in_front_of_the_running_one_runs_after_it(world: World) -> None:
    flow = world.start([ext("w"), step("b")])
    claim = flow.claim("w")
    flow.migrate(step("x"), ext("w"), step("b"))
    assert flow.run().check().row_ids() == []
    flow.finish(claim, Completed(output={}))
    assert finished(flow) == ["w", "x", "b"]


def test_s1_running_step_keeps_its_retry_policy_and_schema(world: World) -> None:
    schema = {"type": "object", "required": ["n"]}
    flow = world.start([ext("w", retry=RETRY, output_schema=schema)])
    claim = flow.claim("w")
    flow.migrate(step("x"))
    flow.finish(claim, Failed(message="boom", retryable=True))
    assert flow.check().standing() == {"w": "backoff"}
    flow.settle()
    flow.complete("w", {"n": 1})
    assert finished(flow) == ["w", "x"]


def test_s1_running_step_that_dies_with_its_worker_runs_again_as_it_was(world: World) -> None:
    flow = world.start([say("m", "{{ data.n }}")], data={"n": 7})
    claim = flow.claim("m")
    flow.migrate(step("x"))
    flow.lose(claim)
    assert finished(flow) == ["m", "x"]
    assert flow.output("m") == {"message": 7}


def test_s1_running_step_that_fails_fails_the_flow_and_a_retry_goes_on_in_the_new_definition(world: World) -> None:
    flow = world.start([step("a"), ext("w"), step("b")]).run()
    claim = flow.claim("w")
    flow.migrate(step("a"), step("x"))
    flow.finish(claim, Failed(message="boom", retryable=False))
    assert flow.check().state == "failed"
    flow.retry()
    assert finished(flow) == ["a", "x"]


def test_s1_running_step_that_fails_is_caught_by_the_new_definition(world: World) -> None:
    flow = world.start([ext("w"), step("b")])
    claim = flow.claim("w")
    flow.migrate(try_catch("t", [ext("w")], [say("c", "{{ data._error.message }}")]))
    flow.finish(claim, Failed(message="boom", retryable=False))
    assert finished(flow) == ["c"]
    assert flow.output("c") == {"message": "boom"}


def test_s1_second_migration_while_the_step_of_the_first_still_runs(world: World) -> None:
    flow = world.start([ext("w"), step("b")])
    claim = flow.claim("w")
    flow.migrate(step("x")).migrate(step("y"), step("z"))
    flow.finish(claim, Completed(output={}))
    assert finished(flow) == ["w", "y", "z"]


# -- what only waits -------------------------------------------------------------------------------------------------


def test_s1_queued_task_is_withdrawn_and_entered_as_the_new_definition_has_it(world: World) -> None:
    flow = world.start([ext("w", params={"v": 1}), step("b")])
    former = flow.steps("w")[0].id
    flow.migrate(ext("w", params={"v": 2}), step("b"))
    (task,) = flow.steps("w")
    assert task.id != former
    claim = flow.claim("w")
    assert world.work(claim).params == {"v": 2}
    flow.finish(claim, Completed(output={}))
    assert finished(flow) == ["w", "b"]


@pytest.mark.parametrize("waits", ["queued", "delayed", "backing off", "gate"])
def test_s1_waiting_step_that_the_new_definition_has_not_is_gone(world: World, waits) -> None:
    first = {
        "queued": ext("w"),
        "delayed": step("w", delay={"duration": 60_000}),
        "backing off": ext("w", retry=RETRY),
        "gate": gate("w"),
    }[waits]
    flow = world.start([first, step("b")]).run()
    if waits == "backing off":
        flow.fail("w", retryable=True)
    flow.migrate(step("x"))
    assert flow.check().steps("w") == []
    assert finished(flow) == ["x"]


def test_s1_delay_goes_on_from_the_moment_it_began(world: World) -> None:
    flow = world.start([step("w", delay={"duration": "3d"})])
    (before,) = world.timers(flow.id).values()
    flow.migrate(step("w", delay={"duration": "3d"}), step("b"))
    (after,) = world.timers(flow.id).values()
    assert after == before
    assert finished(flow) == ["w", "b"]


def test_s1_open_gate_stays_open(world: World) -> None:
    flow = world.start([gate("g", gate={"timeout": "1h"}), step("b")])
    (before,) = flow.steps("g")
    flow.migrate(gate("g", gate={"timeout": "1h", "store_as": "verdict"}), step("x"))
    assert flow.steps("g") == [before]
    flow.answer("g")
    assert finished(flow) == ["g", "g", "x"]
    assert flow.data == {"verdict": "yes"}


def test_s1_kept_answer_reaches_its_gate_in_the_new_definition(world: World) -> None:
    flow = world.start([ext("w"), gate("g")])
    flow.answer("g", "no")
    flow.migrate(step("x"), gate("g"))
    assert finished(flow) == ["x", "g", "g"]
    assert flow.outputs("g")[0]["value"] == "no"


def test_s1_answered_gate_is_not_asked_again(world: World) -> None:
    flow = world.start([ext("g", wait_for_input={}, delay={"duration": 1000}), step("b")])
    flow.pass_time()
    flow.answer("g")
    flow.migrate(step("x"), ext("g", wait_for_input={}, delay={"duration": 1000}))
    flow.run()
    flow.complete("g")
    assert finished(flow) == ["g", "x", "g"]


def test_s1_gate_behind_a_handler_that_has_run_does_not_run_it_again(world: World) -> None:
    flow = world.start([say("g", "asked", wait_for_signal=True), step("b")]).run()
    flow.migrate(step("x"), say("g", "asked twice", wait_for_signal=True))
    assert flow.check().standing() == {"g": "gate"}
    flow.signal({"custom": "g"}, {"ok": True})
    assert finished(flow) == ["g", "g", "x"]
    assert flow.outputs("g") == [{"message": "asked"}, {"ok": True}]


# -- states ----------------------------------------------------------------------------------------------------------


def test_s1_flow_that_has_not_started_begins_with_the_new_definition(world: World) -> None:
    flow = world.start([step("a")], not_before=world.now().replace(year=2099))
    flow.migrate(step("x"))
    assert flow.check().state == "scheduled"
    assert finished(flow) == ["x"]


def test_s1_paused_flow_stays_paused(world: World) -> None:
    flow = world.start([NAP, step("b")]).run().pause()
    flow.migrate(step("x"), step("b"))
    assert flow.check().state == "paused"
    flow.resume()
    assert finished(flow) == ["x", "b"]


def test_s1_flow_that_waits_for_a_chosen_moment_goes_on_then(world: World) -> None:
    flow = world.start([step("a"), NAP]).run().pause()
    flow.force("scheduled", world.now().replace(year=2099))
    flow.migrate(step("a"), step("x"))
    assert flow.check().state == "scheduled"
    assert finished(flow) == ["a", "x"]


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
def test_s1_ended_flow_is_refused(world: World, ending) -> None:
    flow = world.start([fail("a") if ending == "failed" else ext("a") if ending == "cancelled" else step("a")]).run()
    if ending == "cancelled":
        flow.cancel()
    with pytest.raises(InvalidArgument, match="it has ended"):
        flow.migrate(step("x"))
    assert flow.check().state == ending


def test_s1_cancel_after_a_migration_ends_what_is_left(world: World) -> None:
    flow = world.start([parallel("p", [ext("l")], [ext("r", cancellable=False)])])
    flow.claim("l")
    claim = flow.claim("r")
    flow.migrate(step("x"))
    flow.cancel()
    assert flow.check().standing() == {"r": "claimed"}
    flow.finish(claim, Completed(output={}))
    assert flow.check().state == "cancelled"
    assert flow.row_ids() == ["r"]


@pytest.mark.parametrize("waiting", [ext("a", cancellable=False), gate("a", cancellable=False)])
def test_s9_5_step_that_a_cancel_spares_is_finished_after_a_migration(world: World, waiting) -> None:
    flow = world.start([parallel("p", [waiting], [ext("b")]), ext("c")]).cancel()
    flow.migrate(parallel("p", [waiting], [ext("b")]), ext("d"))
    assert list(flow.check().standing()) == ["a"]
    flow.complete("a") if waiting["handler"] == "external" else flow.answer("a").run()
    assert (flow.check().state, flow.tree()["a"], flow.tree()["d"]) == ("cancelled", "completed", "cancelled")


# -- at depth --------------------------------------------------------------------------------------------------------


def test_s1_branches_of_a_parallel_keep_what_has_ended(world: World) -> None:
    flow = world.start([parallel("p", [step("l"), ext("l2")], [ext("r")], [ext("q")])]).run()
    claim = flow.claim("r")
    flow.migrate(parallel("p", [step("l"), step("new"), ext("l2")], [ext("r"), step("r2")]), step("end"))
    assert flow.run().check().row_ids() == ["l", "new"]
    assert flow.standing() == {"l2": "ready", "r": "claimed"}
    flow.complete("l2")
    flow.finish(claim, Completed(output={}))
    assert finished(flow) == ["l", "new", "l2", "r", "r2", "end"]


def test_s1_failed_branch_stays_failed(world: World) -> None:
    flow = world.start([parallel("p", [ext("l")], [ext("r")])])
    flow.fail("l")
    flow.migrate(parallel("p", [ext("l")], [ext("r"), step("r2")]))
    flow.complete("r")
    flow.run()
    assert flow.check().state == "failed"
    flow.retry()
    flow.complete("l")
    assert finished(flow) == ["r", "r2", "l"]


def test_s1_loop_keeps_its_counter(world: World) -> None:
    body = [step("b"), ext("w")]
    flow = world.start([loop("l", body, max_iterations=3)]).run()
    flow.complete("w")
    flow.run()
    claim = flow.claim("w")
    flow.migrate(loop("l", [step("b"), ext("w"), step("c")], max_iterations=3), step("end"))
    flow.finish(claim, Completed(output={}))
    flow.run()
    flow.complete("w")
    assert finished(flow) == ["b", "w", "l", "b", "w", "c", "l", "b", "w", "c", "l", "end"]


def test_s1_loop_between_two_iterations_goes_on_waiting(world: World) -> None:
    flow = world.start([loop("l", [step("b")], max_iterations=2, poll_interval=60)]).run()
    flow.migrate(loop("l", [step("b"), step("c")], max_iterations=2, poll_interval=60))
    assert flow.check().state == "scheduled"
    assert finished(flow) == ["b", "l", "b", "c", "l"]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_s1_for_each_keeps_its_items(world: World, concurrency) -> None:
    body = [say("b", "{{ item }}"), ext("w")]
    flow = world.start([for_each("f", "items", body, concurrency=concurrency)], data={"items": [1, 2, 3]}).run()
    flow.complete("w")
    flow.run()
    flow.migrate(for_each("f", "items", [*body, say("c", "{{ item }}!")], concurrency=concurrency), step("end"))
    for _ in range(2):
        flow.run()
        flow.complete("w")
    assert finished(flow).count("w") == 3
    assert [row["message"] for row in flow.outputs("b")] == [1, 2, 3]
    assert sorted(row["message"] for row in flow.outputs("c")) == ["2!", "3!"]
    assert [row["_index"] for row in flow.outputs("f")] == [1, 2, 3]


def test_s1_running_item_reads_its_item_although_the_new_definition_has_no_for_each(world: World) -> None:
    flow = world.start([for_each("f", "items", [say("b", "{{ item }}")])], data={"items": [1, 2]})
    claim = flow.claim("b")
    flow.migrate(step("x"))
    flow.finish(claim, world.outcome(world.work(claim)))
    assert finished(flow) == ["b", "x"]
    assert flow.outputs("b") == [{"message": 1}]


@pytest.mark.parametrize("target", ["the same", "without the for_each"])
def test_s1_running_step_reads_the_outputs_of_its_own_item_in_every_attempt(world: World, target) -> None:
    body = [say("b", "{{ item }}"), say("w", "{{ outputs.b.message }}")]
    blocks = [for_each("f", "items", body, concurrency=2), step("end")]
    flow = world.start(blocks, data={"items": [1, 2]})
    for _ in range(2):
        flow.execute(flow.steps("b")[0])
    first, second = (flow.claim("w") for _ in range(2))
    flow.migrate(*(blocks if target == "the same" else [step("end")]))
    flow.lose(first)
    flow.lose(second)
    flow.settle()
    assert sorted(row["message"] for row in flow.outputs("w")) == [1, 2]


def test_s1_running_step_reads_the_newest_output_of_a_for_each_in_every_attempt(world: World) -> None:
    blocks = [for_each("f", "items", [say("b", "{{ item }}")], concurrency=2), say("w", "{{ outputs.b.message }}")]
    flow = world.start(blocks, data={"items": [1, 2]})
    for _ in range(2):
        flow.execute(flow.steps("b")[0])
    claim = flow.claim("w")
    flow.migrate(step("x"))
    flow.lose(claim)
    finished(flow)
    assert flow.output("w") == {"message": 2}


def test_s1_catch_list_goes_on_and_the_try_list_is_not_run_again(world: World) -> None:
    flow = world.start([try_catch("t", [fail("f")], [ext("c")], [step("z")])]).run()
    flow.migrate(try_catch("t", [step("f2")], [ext("c"), step("c2")], [step("z")]), step("end"))
    flow.complete("c")
    assert finished(flow) == ["c", "c2", "z", "end"]


def test_s1_finally_list_goes_on(world: World) -> None:
    flow = world.start([try_catch("t", [fail("f")], [fail("c")], [ext("z")])]).run()
    flow.migrate(try_catch("t", [fail("f")], [fail("c")], [ext("z"), step("z2")]), step("end"))
    flow.complete("z")
    flow.run()
    assert flow.check().state == "failed"
    assert flow.row_ids() == ["z", "z2"]


def test_s1_router_keeps_its_choice(world: World) -> None:
    routes = [("n == 1", [step("a"), ext("w")])]
    flow = world.start([router("r", *routes, default=[step("d")])], data={"n": 1}).run()
    flow.signal("update_context", {"data": {"n": 2}})
    flow.migrate(router("r", ("n == 1", [step("a"), ext("w"), step("a2")]), default=[step("d")]))
    flow.complete("w")
    assert finished(flow) == ["a", "w", "a2"]


def test_s1_block_of_another_kind_begins_anew_and_keeps_what_its_steps_have_done(world: World) -> None:
    flow = world.start([parallel("p", [step("a")], [ext("w")])]).run()
    flow.migrate(try_catch("p", [step("a"), ext("w")]), step("b"))
    flow.complete("w")
    assert finished(flow) == ["a", "w", "b"]
    assert flow.tree() == dict.fromkeys("pawb", "completed")


def test_s1_step_that_moved_into_a_composite_is_not_run_again(world: World) -> None:
    flow = world.start([step("a"), ext("w")]).run()
    claim = flow.claim("w")
    flow.migrate(parallel("p", [step("a"), step("a2")], [ext("w"), step("w2")]))
    assert flow.run().check().row_ids() == ["a", "a2"]
    flow.finish(claim, Completed(output={}))
    assert finished(flow) == ["a", "a2", "w", "w2"]


def test_s1_saga_goes_on_with_its_actions_and_its_roll_back(world: World) -> None:
    def undone(*actions):
        return saga("s", *((action, ext(f"u{action['id']}")) for action in actions))

    flow = world.start([undone(step("a"), ext("w"))]).run()
    flow.migrate(undone(step("a"), step("x"), ext("w")), step("end"))
    flow.run().fail("w")
    flow.complete("ux")
    assert flow.check().standing() == {"ua": "ready"}
    flow.migrate(undone(step("a"), step("x"), ext("w")))
    flow.complete("ua")
    assert flow.check().state == "failed"
    assert flow.row_ids() == ["a", "x", "ux", "ua"]


@pytest.mark.parametrize("action", [step("a"), scope("x", step("a"))])
def test_s1_running_compensation_reads_the_error_of_its_saga_in_every_attempt(world: World, action) -> None:
    undo = say("ua", "{{ context.data._error.failed_step }}")
    steps = saga("s", (action, try_catch("in", [undo], [step("c")])), (ext("b"), None))
    beside = try_catch("t", [ext("w")], [step("h")])
    flow = world.start([parallel("p", [steps], [beside])]).run()
    flow.fail("b")
    claim = flow.claim("ua")
    flow.fail("w")
    flow.migrate(parallel("p", [steps], [beside]), step("end"))
    flow.lose(claim)
    flow.run()
    assert flow.check().state == "failed"
    assert flow.output("ua") == {"message": "s.1"}


def test_s1_race_goes_on(world: World) -> None:
    def race(*branches):
        return {"type": "race", "id": "r", "branches": list(branches), "semantics": "first_to_succeed"}

    flow = world.start([race([ext("l")], [ext("m"), ext("m2")])])
    flow.fail("l")
    flow.complete("m")
    flow.migrate(race([ext("l")], [ext("m"), step("x"), ext("m2")]), step("end"))
    flow.run().complete("m2")
    assert finished(flow) == ["m", "x", "m2", "end"]


def test_s1_injected_blocks_go_over_too(world: World) -> None:
    flow = world.start([ext("w"), step("b")])
    flow.inject(step("i"), position=0).inject(step("j"))
    flow.migrate(ext("w"), step("x"), step("b"))
    flow.complete("w")
    assert finished(flow) == ["w", "x", "i", "b", "j"]


def test_s9_10_injection_after_a_migration(world: World) -> None:
    flow = world.start([step("a"), ext("w")]).run()
    claim = flow.claim("w")
    flow.migrate(step("x"), step("y"))
    with pytest.raises(InvalidArgument, match="duplicate block id: a"):
        flow.inject(step("a"))
    flow.inject(step("i"), position=1)
    flow.finish(claim, Completed(output={}))
    assert finished(flow) == ["a", "w", "x", "i", "y"]
