"""Section 3: what each block runs, in which order, and which rows it leaves."""

import pytest

from tests.support.drive import (
    World,
    fail,
    for_each,
    gate,
    loop,
    parallel,
    race,
    router,
    saga,
    say,
    scope,
    split,
    step,
    try_catch,
)


def ext(block_id, **fields):
    return step(block_id, "external", **fields)


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


# -- 3.4 loop --------------------------------------------------------------------------------------------------------


def test_s3_4_loop_at_its_cap_completes(world: World) -> None:
    flow = world.start([loop("l", [step("a")], max_iterations=3)]).run()
    assert flow.check().state == "completed"
    assert len(flow.rows("a")) == 3
    assert [(row.output, row.attempt) for row in flow.rows("l")] == [({"_iterations": n}, n) for n in (1, 2, 3)]


def test_s3_4_falsy_condition_completes_without_a_row(world: World) -> None:
    flow = world.start([loop("l", [step("a")], "go")]).run()
    assert (flow.check().state, flow.rows()) == ("completed", [])
    assert flow.tree() == {"l": "completed", "a": "skipped"}


def test_s3_4_inner_loop_runs_afresh_in_each_outer_iteration(world: World) -> None:
    inner = loop("inner", [step("a")], "iteration < 2")
    flow = world.start([loop("outer", [inner, step("b")], "iteration < 3")]).run()
    assert flow.check().state == "completed"
    counts = {block_id: len(flow.rows(block_id)) for block_id in ("a", "b", "inner", "outer")}
    assert counts == {"a": 6, "b": 3, "inner": 6, "outer": 3}


def test_s3_4_failed_body_fails_the_loop(world: World) -> None:
    flow = world.start([loop("l", [step("a"), fail("f"), step("b")], max_iterations=3)]).run()
    assert flow.check().state == "failed"
    assert (len(flow.rows("a")), flow.rows("l"), flow.rows("b")) == (1, [], [])


def test_s3_4_continue_on_error_goes_on(world: World) -> None:
    flow = world.start([loop("l", [step("a"), fail("f")], max_iterations=3, continue_on_error=True), step("z")]).run()
    assert flow.check().state == "completed"
    assert (len(flow.rows("a")), len(flow.rows("l")), len(flow.rows("z"))) == (3, 3, 1)


def test_s3_4_break_on_is_tested_after_the_body(world: World) -> None:
    flow = world.start([loop("l", [say("a", "{{ runtime.attempt }}")], break_on="iteration >= 1")]).run()
    assert flow.check().state == "completed"
    assert len(flow.rows("a")) == 2


def test_s3_4_poll_interval_schedules_but_not_after_the_last_iteration(world: World) -> None:
    flow = world.start([loop("l", [step("a")], max_iterations=2, poll_interval=60)]).run()
    assert flow.check().state == "scheduled"
    assert 58 < flow.due_in() <= 60
    flow.pass_time()
    assert flow.run().check().state == "completed"


def test_s3_4_condition_reads_outputs_of_its_own_body_from_the_second_iteration(world: World) -> None:
    flow = world.start([loop("l", [ext("analyze")], "outputs.analyze.more == true")])
    flow.complete("analyze", {"more": True})
    flow.complete("analyze", {"more": False})
    assert flow.check().state == "completed"
    assert len(flow.rows("analyze")) == 2


def test_s3_4_condition_counts_as_satisfied_until_the_body_has_spoken(world: World) -> None:
    """In each activation of the loop anew: what an earlier one has said does not count."""
    inner = loop("l", [ext("a"), step("analyze", when="ready == true")], "outputs.analyze.more == true")
    flow = world.start([loop("outer", [inner], "iteration < 2")])
    for ready in (False, False, True, False, True):
        assert flow.check().standing() == {"a": "ready"}
        flow.complete("a", {"ready": ready})
        world.restart()
        flow.run()
    assert flow.check().state == "completed"
    assert (len(flow.rows("a")), len(flow.rows("analyze"))) == (5, 2)


def test_s3_4_finished_iterations_survive_a_crash(world: World) -> None:
    flow = world.start([loop("l", [step("a"), step("b")], "iteration < 4")])
    flow.run(between=world.restart)
    assert (flow.state, len(flow.rows("a")), len(flow.rows("b"))) == ("completed", 4, 4)


# -- 3.5 for_each ----------------------------------------------------------------------------------------------------


def test_s3_5_items_run_one_after_another(world: World) -> None:
    body = [say("a", "{{ context.data.item }}"), say("b", "{{ item }}/{{ index }}/{{ item_index }}")]
    flow = world.start([for_each("e", "items", body)], data={"items": ["x", "y"]}).run()
    assert flow.check().state == "completed"
    assert [row.block_id for row in flow.rows() if row.block_id != "e"] == ["a", "b", "a", "b"]
    assert [o["message"] for o in flow.outputs("a")] == ["x", "y"]
    assert [o["message"] for o in flow.outputs("b")] == ["x/0/0", "y/1/1"]
    assert [(o["_index"], o["_total"], o["_item_var"]) for o in flow.outputs("e")] == [(1, 2, "item"), (2, 2, "item")]


@pytest.mark.parametrize("collection", ["items", "data.items", "context.data.items", "{{ data.items }}"])
def test_s3_5_collection_is_a_path_or_a_template(world: World, collection: str) -> None:
    flow = world.start([for_each("e", collection, [step("a")])], data={"items": [1, 2]}).run()
    assert len(flow.check().rows("a")) == 2


@pytest.mark.parametrize("items", [None, [], {"a": 1}, "text", 7])
def test_s3_5_what_is_no_array_completes_at_once(world: World, items) -> None:
    flow = world.start([for_each("e", "items", [step("a")])], data={"items": items}).run()
    assert (flow.check().state, flow.rows()) == ("completed", [])
    assert flow.tree()["a"] == "skipped"


def test_s3_5_array_is_captured_once(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a")])], data={"items": [1, 2]})
    flow.complete("a", {"items": []})
    flow.signal("update_context", {"data": {"items": [7, 8, 9]}})
    world.restart()
    assert world.work(flow.claim("a")).scope.bindings == {"item": 2}


def test_s3_5_array_is_cut_to_max_iterations(world: World) -> None:
    flow = world.start([for_each("e", "items", [step("a")], max_iterations=2)], data={"items": [1, 2, 3]}).run()
    assert len(flow.check().rows("a")) == 2


def test_s3_5_failed_body_fails_the_block_and_stops_the_items(world: World) -> None:
    body = [fail("f", when="item == 2"), say("a", "{{ item }}")]
    flow = world.start([for_each("e", "items", body)], data={"items": [1, 2, 3]}).run()
    assert flow.check().state == "failed"
    assert [o["message"] for o in flow.outputs("a")] == [1]
    assert "item" not in flow.data


def test_s3_5_variable_is_gone_after_the_block(world: World) -> None:
    flow = world.start([for_each("e", "items", [step("a")]), say("b", "{{ data.item | none }}")], data={"items": [1]})
    assert flow.run().check().output("b") == {"message": "none"}


def test_s3_5_inner_item_shadows_the_outer(world: World) -> None:
    inner = for_each("inner", "row.cells", [say("a", "{{ row.name }}{{ cell }}")], item_var="cell")
    data = {"rows": [{"name": "x", "cells": [1, 2]}, {"name": "y", "cells": [3]}]}
    flow = world.start([for_each("outer", "rows", [inner], item_var="row")], data=data).run()
    assert [o["message"] for o in flow.check().outputs("a")] == ["x1", "x2", "y3"]


def test_s3_5_context_replaced_in_mid_iteration_keeps_the_item(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a"), say("b", "{{ item }}-{{ data.k }}")])], data={"items": [5]})
    world.replace_context(flow.id, {"k": "new"}, {})
    flow.complete("a")
    assert flow.run().check().output("b") == {"message": "5-new"}


def test_s3_5_concurrency_starts_items_in_order_up_to_the_limit(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a")], concurrency=2)], data={"items": [1, 2, 3, 4]})
    assert sorted(s.key.iteration for s in flow.steps()) == [(0,), (1,)]
    flow.complete("a", index=1)
    assert sorted(s.key.iteration for s in flow.check().steps()) == [(0,), (2,)]


def test_s3_5_concurrency_reads_own_lane_outputs(world: World) -> None:
    body = [ext("a"), say("b", "{{ outputs.a.v }}")]
    flow = world.start([for_each("e", "items", body, concurrency=3), say("z", "{{ outputs.b.message }}")])
    assert flow.check().state == "running"
    flow = world.start(
        [for_each("e", "items", body, concurrency=3), say("z", "{{ outputs.b.message }}")], data={"items": [1, 2, 3]}
    )
    for number in (2, 1, 0):
        flow.complete("a", {"v": f"v{number}"}, index=number)
    world.restart()
    flow.run()
    assert {row.iteration: row.output["message"] for row in flow.rows("b")} == {(0,): "v0", (1,): "v1", (2,): "v2"}
    assert flow.check().output("z") == flow.output("b")
    assert "item" not in flow.data


def test_s3_5_concurrency_lets_items_in_progress_finish_after_a_failure(world: World) -> None:
    body = [ext("a"), step("b")]
    flow = world.start([for_each("e", "items", body, concurrency=2)], data={"items": [1, 2, 3, 4]})
    flow.fail("a")
    assert flow.check().state == "waiting"
    flow.complete("a")
    flow.run()
    assert flow.check().state == "failed"
    assert [row.iteration for row in flow.rows("b")] == [(1,)]
    assert flow.retry().check().standing() == {"a": "ready"}
    for _ in range(3):
        flow.complete("a")
        flow.run()
    assert flow.check().state == "completed"
    assert sorted(row.iteration for row in flow.rows("a")) == [(0,), (1,), (2,), (3,)]


# -- 3.6 router ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "ran"), [("x", "a"), ("y", "b"), ("z", "d")])
def test_s3_6_first_truthy_route_runs_else_the_default(world: World, value: str, ran: str) -> None:
    routes = [('v == "x"', [step("a")]), ('v == "x" || v == "y"', [step("b")])]
    flow = world.start([router("r", *routes, default=[step("d")])], data={"v": value}).run()
    assert (flow.check().state, flow.row_ids()) == ("completed", [ran])
    assert {k: v for k, v in flow.tree().items() if k in "abd"} == {
        k: "completed" if k == ran else "skipped" for k in "abd"
    }


def test_s3_6_nothing_chosen_completes(world: World) -> None:
    flow = world.start([router("r", ("(((", [step("a")])), step("z")]).run()
    assert (flow.check().state, flow.row_ids(), flow.tree()["a"]) == ("completed", ["z"], "skipped")


def test_s3_6_choice_is_made_once(world: World) -> None:
    flow = world.start([router("r", ("go", [ext("a"), step("b")]), default=[step("d")])], data={"go": True})
    flow.signal("update_context", {"data": {"go": False}})
    world.restart()
    flow.fail("a")
    flow.retry()
    flow.complete("a")
    assert flow.run().check().row_ids() == ["a", "b"]


def test_s3_6_worker_output_decides_the_next_route(world: World) -> None:
    flow = world.start([ext("w"), router("r", ('category == "A"', [step("a")]), default=[step("d")])])
    flow.complete("w", {"category": "A"})
    assert flow.run().check().row_ids() == ["w", "a"]


def test_s3_6_failed_list_fails_the_router(world: World) -> None:
    flow = world.start([router("r", ("true", [fail("f")]))]).run()
    assert (flow.check().state, flow.tree()["r"]) == ("failed", "failed")


# -- 3.7 try_catch ---------------------------------------------------------------------------------------------------


def test_s3_7_catch_is_skipped_when_try_succeeds(world: World) -> None:
    flow = world.start([try_catch("t", [step("a")], [step("c")], [step("z")])]).run()
    assert (flow.check().state, flow.row_ids(), flow.tree()["c"]) == ("completed", ["a", "z"], "skipped")


def test_s3_7_handled_failure_sets_error_and_leaves_no_row(world: World) -> None:
    flow = world.start([try_catch("t", [step("a"), fail("f", "no"), step("b")], [say("c", "{{ data._error }}")])]).run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "c"])
    error = flow.data["_error"]
    assert error["failed_blocks"] == ["f"]
    assert (error["source"], error["block_id"], error["message"], error["step_id"]) == ("try_catch", "t", "no", "f")
    assert flow.output("c") == {"message": error}


@pytest.mark.parametrize(
    ("attempt", "catch", "last", "state"),
    [
        ([step("a")], [], [step("z")], "completed"),
        ([fail("a")], [], [step("z")], "completed"),
        ([fail("a")], [step("c")], [step("z")], "completed"),
        ([fail("a")], [fail("c")], [step("z")], "failed"),
        ([step("a")], [], [step("z"), fail("y")], "failed"),
        ([fail("a")], [step("c")], [step("z"), fail("y")], "failed"),
    ],
)
def test_s3_7_fails_iff_finally_failed_or_both_try_and_catch(world: World, attempt, catch, last, state) -> None:
    flow = world.start([try_catch("t", attempt, catch, last)]).run()
    assert flow.check().state == state
    assert len(flow.rows("z")) == 1


def test_s3_7_inner_handled_failure_is_invisible_outside(world: World) -> None:
    inner = try_catch("inner", [parallel("p", [fail("f")], [step("a")])], [])
    flow = world.start([try_catch("outer", [inner, step("b")], [step("c")])]).run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "b"])


def test_s3_7_finally_runs_after_a_cancel(world: World) -> None:
    flow = world.start([try_catch("t", [ext("a")], [step("c")], [ext("z"), step("y")]), step("after")])
    flow.cancel()
    assert (flow.check().state, flow.standing()) == ("waiting", {"z": "ready"})
    flow.complete("z")
    flow.run()
    assert (flow.check().state, flow.row_ids()) == ("cancelled", ["z", "y"])


def test_s3_7_nested_three_deep(world: World) -> None:
    deepest = try_catch("t3", [fail("f3")], [fail("c3")], [step("z3")])
    middle = try_catch("t2", [deepest], [fail("c2")], [step("z2")])
    flow = world.start([try_catch("t1", [middle], [step("c1")], [step("z1")])]).run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["z3", "z2", "c1", "z1"])


# -- everything inside everything --------------------------------------------------------------------------------------

NESTED = [
    try_catch(
        "t",
        [
            for_each(
                "e",
                "items",
                [
                    parallel(
                        "p",
                        [
                            loop(
                                "l",
                                [say("a", "{{ item }}"), step("nap", "sleep", {"duration_ms": 10})],
                                "iteration < 2",
                            )
                        ],
                        [
                            router("r", ("item == 1", [say("one", 1)]), default=[say("more", 2)]),
                            fail(
                                "f",
                                retryable=True,
                                when="item == 3",
                                retry={"max_attempts": 2, "initial_backoff": 5, "max_backoff": 5},
                            ),
                        ],
                    )
                ],
                concurrency=2,
            )
        ],
        [say("caught", "{{ data._error.failed_blocks }}")],
        [say("last", "bye")],
    ),
    say("end", "{{ outputs.caught.message }}"),
]
EXPECTED = {"a": 6, "nap": 6, "l": 6, "one": 1, "more": 2, "e": 2, "caught": 1, "last": 1, "end": 1}


def counts(flow) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in flow.rows():
        found[row.block_id] = found.get(row.block_id, 0) + 1
    return found


@pytest.mark.parametrize("carry", [False, True])
def test_s3_nesting_leaves_exactly_the_rows_of_what_ran(world: World, *, carry: bool) -> None:
    flow = world.start(NESTED, data={"items": [1, 2, 3]}).settle(carry=carry)
    assert (flow.check().state, counts(flow)) == ("completed", EXPECTED)
    assert flow.output("end") == {"message": ["e"]}


def test_s5_9_a_crash_between_any_two_steps_changes_nothing(world: World) -> None:
    """Before every claim the engine is new, and another worker has claimed the next step and died with it."""
    flow = world.start(NESTED, data={"items": [1, 2, 3]})
    deaths = 0

    def crash() -> None:
        nonlocal deaths
        ready = flow.ready()
        if ready and ready[0].losses == 0:
            claim = world.claim(flow.id, ready[0])
            world.restart()
            assert flow.lose(claim)
            deaths += 1
        flow.check()

    flow.settle(between=crash)
    assert (flow.check().state, counts(flow)) == ("completed", EXPECTED)
    assert deaths > 15


CONTAINERS = {
    "root": lambda inside: inside,
    "parallel": lambda inside: [parallel("box", inside, [step("other")])],
    "loop": lambda inside: [loop("box", inside, "iteration < 1")],
    "for_each": lambda inside: [for_each("box", "items", inside)],
    "concurrent": lambda inside: [for_each("box", "items", inside, concurrency=2)],
    "router": lambda inside: [router("box", ("true", inside))],
    "try": lambda inside: [try_catch("box", inside, [step("other")])],
    "catch": lambda inside: [try_catch("box", [fail("bad")], inside)],
    "finally": lambda inside: [try_catch("box", [step("other")], [], inside)],
    "race": lambda inside: [race("box", [], inside)],
    "split": lambda inside: [split("box", ("A", 1, inside), ("B", 0, [step("other")]))],
    "scope": lambda inside: [scope("box", *inside)],
    "action": lambda inside: [saga("box", (step("other"), None), (scope("in_box", *inside), None))],
    "undo": lambda inside: [saga("box", (step("other"), scope("in_box", *inside)), (fail("bad"), None))],
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_s5_1_gates_stand_inside_every_container(world: World, container: str) -> None:
    """A delay, then a guard, then a human gate, then a worker, then a retried failure: all at this depth."""
    inside = [
        step("d", delay={"duration": 1000}),
        step("w", when="false"),
        gate("g"),
        ext("x"),
        fail("r", retryable=True, retry={"max_attempts": 2, "initial_backoff": 1000, "max_backoff": 1000}),
    ]
    flow = world.start(CONTAINERS[container](inside), data={"items": [1]}).run()
    assert (flow.check().state, flow.standing()) == ("scheduled", {"d": "delayed"})
    flow.pass_time()
    flow.run()
    assert (flow.check().state, flow.standing()) == ("waiting", {"g": "gate"})
    world.restart()
    flow.answer("g", "no").run()
    assert (flow.check().state, flow.standing()) == ("waiting", {"x": "ready"})
    flow.complete("x")
    flow.run()
    assert (flow.check().state, flow.standing()) == ("scheduled", {"r": "backoff"})
    flow.pass_time()
    flow.run()
    assert flow.check().state == ("completed" if container == "try" else "failed")
    assert (len(flow.rows("d")), len(flow.rows("w")), len(flow.rows("g")), len(flow.rows("x"))) == (1, 0, 2, 1)


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name not in {"try", "undo"}])
def test_s9_7_retry_keeps_completed_rows_at_any_depth(world: World, container: str) -> None:
    inside = [step("a"), parallel("in", [step("b"), ext("x")], [step("c")]), step("d")]
    flow = world.start(CONTAINERS[container](inside), data={"items": [1]}).run()
    for _ in range(3):
        flow.fail("x")
        assert flow.check().state == "failed"
        before = flow.rows()
        world.restart()
        flow.retry()
        assert flow.check().standing() == {"x": "ready"}
        assert flow.rows() == [row for row in before if row.ref != "__error__"]
    flow.complete("x")
    flow.run()
    assert flow.check().state == "completed"
    assert all(len(flow.rows(block_id)) == 1 for block_id in "abcdx")
    assert world.executed.count(("a", world.executed[0][1], 0)) <= 1
