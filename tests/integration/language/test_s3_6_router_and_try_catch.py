"""Sections 3.6 and 3.7: routers and try_catch."""

import pytest

from tests.support.drive import World, ext, fail, parallel, router, say, step, try_catch

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
