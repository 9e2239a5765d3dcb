"""Section 3.3: races."""

from typing import Any

import pytest

from tests.support.drive import World, ext, fail, gate, loop, parallel, race, router, scope, step, try_catch

SUCCEED = {"semantics": "first_to_succeed"}


def test_s3_3_first_branch_to_complete_wins_and_the_others_are_cancelled(world: World) -> None:
    loser = [parallel("p", [ext("x")], [loop("l", [ext("y")])]), step("after")]
    flow = world.start([race("r", [ext("a"), ext("b")], loser), step("z")])
    assert (flow.check().state, sorted(flow.standing())) == ("waiting", ["a", "x", "y"])
    late = flow.claim("x")
    flow.complete("a")
    assert sorted(flow.check().standing()) == ["b", "x", "y"]
    flow.complete("b")
    assert flow.check().standing() == {"z": "ready"}
    flow.finish(late, world.outcome(world.work(late)))
    assert flow.run().check().state == "completed"
    assert flow.row_ids() == ["a", "b", "z"]
    tree = flow.tree()
    assert {tree[block_id] for block_id in ("r", "a", "b", "z")} == {"completed"}
    assert {tree[block_id] for block_id in ("p", "x", "l", "y", "after")} == {"cancelled"}


@pytest.mark.parametrize("carry", [False, True])
def test_s3_3_sleeping_loser_leaves_no_row(world: World, *, carry: bool) -> None:
    slow = step("slow", "sleep", {"duration_ms": 60_000})
    flow = world.start([race("r", [slow, step("never")], [step("fast", "sleep", {"duration_ms": 10})])])
    flow.settle(carry=carry)
    assert (flow.check().state, flow.row_ids()) == ("completed", ["fast"])
    assert flow.tree() == {"r": "completed", "slow": "cancelled", "never": "cancelled", "fast": "completed"}


def test_s3_3_first_to_resolve_fails_at_the_first_dead_branch(world: World) -> None:
    flow = world.start([race("r", [ext("a"), step("b")], [ext("c")]), step("z")])
    flow.fail("a", message="dead")
    assert (flow.check().state, flow.row_ids(), flow.standing()) == ("failed", [], {})
    tree = flow.tree()
    assert tree == {"r": "failed", "a": "failed", "b": "cancelled", "c": "cancelled", "z": "cancelled"}


def test_s3_3_first_to_succeed_ignores_dead_branches(world: World) -> None:
    flow = world.start([race("r", [ext("a")], [ext("b")], [ext("c")], **SUCCEED)])
    flow.fail("a")
    assert flow.check().state == "waiting"
    flow.fail("b")
    flow.complete("c")
    assert flow.check().state == "completed"
    assert flow.tree() == {"r": "completed", "a": "failed", "b": "failed", "c": "completed"}


def test_s3_3_first_to_succeed_fails_only_when_all_are_dead(world: World) -> None:
    flow = world.start([try_catch("t", [race("r", [ext("a")], [ext("b")], **SUCCEED)], [step("c")])])
    flow.fail("a", message="first")
    assert flow.check().state == "waiting"
    flow.fail("b")
    assert flow.run().check().state == "completed"
    assert flow.tree()["r"] == "failed"
    assert (flow.data["_error"]["failed_blocks"], flow.data["_error"]["message"]) == (["r"], "first")


@pytest.mark.parametrize("branches", [[[]], [[], []]])
def test_s3_3_race_of_empty_branches_completes(world: World, branches: list[Any]) -> None:
    flow = world.start([race("r", *branches), step("z")]).run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["z"])


def test_s3_3_empty_branch_takes_no_part(world: World) -> None:
    flow = world.start([race("r", [], [ext("a")])])
    assert flow.check().state == "waiting"
    flow.fail("a")
    assert flow.check().state == "failed"


def test_s3_3_branch_that_recovers_is_alive_and_may_win(world: World) -> None:
    flow = world.start([race("r", [try_catch("t", [ext("a")], [ext("c")])], [ext("b")])])
    flow.fail("a")
    assert sorted(flow.check().standing()) == ["b", "c"]
    flow.complete("c")
    assert flow.check().state == "completed"
    assert (flow.tree()["b"], flow.tree()["t"]) == ("cancelled", "completed")


@pytest.mark.parametrize("semantics", ["first_to_resolve", "first_to_succeed"])
def test_s3_3_finally_list_of_a_loser_runs_before_anything_follows(world: World, semantics: str) -> None:
    loser = [try_catch("t", [ext("a")], [], [ext("tidy")]), step("after")]
    flow = world.start([race("r", [ext("w")], loser, semantics=semantics), step("z")])
    flow.complete("w")
    assert flow.check().standing() == {"tidy": "ready"}
    flow.complete("tidy")
    assert flow.run().check().state == "completed"
    assert flow.row_ids() == ["w", "tidy", "z"]
    assert flow.tree()["after"] == "cancelled"


def test_s3_3_failed_finally_list_of_a_loser_does_not_change_who_has_won(world: World) -> None:
    flow = world.start([race("r", [ext("w")], [try_catch("t", [ext("a")], [], [fail("f")])])])
    flow.complete("w")
    assert flow.run().check().state == "completed"


def test_s3_3_waiting_and_delayed_losers_are_withdrawn(world: World) -> None:
    losers = [[gate("g")], [step("d", delay={"duration": 60_000})], [loop("l", [step("n")], poll_interval=60)]]
    flow = world.start([race("r", [ext("w")], *losers)]).run()
    flow.complete("w")
    assert (flow.check().state, flow.standing(), world.timers(flow.id)) == ("completed", {}, {})


def test_s3_3_race_in_a_race(world: World) -> None:
    inner = race("in", [ext("a")], [ext("b")])
    flow = world.start([race("out", [inner, ext("c")], [ext("d")])])
    flow.complete("b")
    assert sorted(flow.check().standing()) == ["c", "d"]
    flow.complete("d")
    assert flow.check().state == "completed"
    assert (flow.tree()["in"], flow.tree()["a"], flow.tree()["c"]) == ("completed", "cancelled", "cancelled")


def test_s3_3_winner_is_the_first_of_one_decision(world: World) -> None:
    """Both branches complete without any step: the first in the document has won."""
    flow = world.start([race("r", [router("a", ("false", [step("x")]))], [router("b", ("false", [step("y")]))])]).run()
    assert (flow.check().state, flow.rows()) == ("completed", [])


def test_s3_3_race_runs_afresh_in_each_iteration(world: World) -> None:
    flow = world.start([loop("l", [race("r", [ext("a")], [ext("b")])], "iteration < 2")])
    flow.complete("a")
    flow.complete("b")
    assert flow.check().state == "completed"
    assert [(row.block_id, row.iteration) for row in flow.rows() if row.block_id != "l"] == [("a", (0,)), ("b", (1,))]


def test_s9_7_retry_of_a_failed_race_starts_all_branches_where_they_stood(world: World) -> None:
    flow = world.start([race("r", [step("a"), ext("b")], [step("c"), ext("d")])]).run()
    flow.fail("b")
    flow.retry()
    assert sorted(flow.check().standing()) == ["b", "d"]
    flow.complete("d")
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "c", "d"])


def test_s9_5_cancel_ends_a_race_as_cancelled(world: World) -> None:
    flow = world.start([race("r", [ext("a")], [ext("b")])])
    flow.cancel()
    assert flow.check().state == "cancelled"
    assert flow.tree() == dict.fromkeys("rab", "cancelled")


def test_s9_5_branch_that_a_cancel_has_ended_does_not_decide_for_a_shielded_one(world: World) -> None:
    flow = world.start([race("r", [ext("a")], [scope("s", ext("b"), step("c"))])])
    flow.cancel()
    assert (flow.check().state, flow.standing()) == ("waiting", {"b": "ready"})
    flow.complete("b")
    assert flow.run().check().state == "cancelled"
    assert (flow.tree()["r"], flow.tree()["s"], flow.row_ids()) == ("completed", "completed", ["b", "c"])
