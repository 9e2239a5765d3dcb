"""Sections 3.3 and 3.9 to 3.11: races, splits, cancellation scopes and sagas."""

from hashlib import sha256
from typing import Any

import pytest

from orchestrator.core.composites import nodes
from tests.support.drive import (
    Flow,
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

SUCCEED = {"semantics": "first_to_succeed"}


def ext(block_id: str, **fields: Any) -> dict[str, Any]:
    return step(block_id, "external", **fields)


# -- 3.3 race --------------------------------------------------------------------------------------------------------


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


# -- 3.9 a_b_split ---------------------------------------------------------------------------------------------------


def variant_of(flow: Flow, block_id: str, weights: list[int]) -> int:
    """The rule of the contract, word for word."""
    digest = sha256(flow.id.bytes + b"\x00" + block_id.encode("utf-8")).digest()
    point = int.from_bytes(digest[:8], "big") % sum(weights)
    for index in range(len(weights)):
        if sum(weights[: index + 1]) > point:
            return index
    raise AssertionError


def test_s3_9_choice_follows_from_instance_and_block(world: World) -> None:
    chosen = set()
    for _ in range(12):
        blocks = [split("ä/b", ("A", 3, [step("a")]), ("0", 0, [step("n")]), ("B", 2, [step("b"), step("b2")]))]
        flow = world.start(blocks).run()
        index = variant_of(flow, "ä/b", [3, 0, 2])
        name = "A0B"[index]
        assert flow.output("ä/b") == {"variant": name, "variant_index": index, "selected_variant": name}
        assert flow.check().row_ids() == ["ä/b", *{0: ["a"], 2: ["b", "b2"]}[index]]
        states = {"a": index == 0, "n": False, "b": index == 2, "b2": index == 2}
        assert {k: v for k, v in flow.tree().items() if k in states} == {
            k: "completed" if ran else "skipped" for k, ran in states.items()
        }
        chosen.add(index)
    assert chosen == {0, 2}


def test_s3_9_row_is_written_before_the_variant_starts_and_kept_over_a_retry(world: World) -> None:
    variants = [("A", 1, [step("m"), ext("x")]), ("B", 0, [])]
    flow = world.start([split("s", *variants), say("z", "{{ outputs.s.selected_variant }}")])
    assert flow.row_ids() == ["s"]
    flow.run(between=world.restart)
    flow.fail("x")
    assert (flow.check().state, flow.tree()["s"]) == ("failed", "failed")
    flow.retry()
    assert flow.check().standing() == {"x": "ready"}
    flow.complete("x")
    assert flow.run().check().state == "completed"
    assert flow.row_ids() == ["s", "m", "x", "z"]
    assert flow.output("z") == {"message": "A"}


def test_s3_9_empty_variant_completes(world: World) -> None:
    flow = world.start([split("s", ("A", 1, []), ("B", 0, [step("b")])), step("z")]).run()
    assert (flow.check().state, flow.row_ids(), flow.tree()["b"]) == ("completed", ["s", "z"], "skipped")


def test_s3_9_each_iteration_leaves_a_row_of_the_same_choice(world: World) -> None:
    flow = world.start([loop("l", [split("s", ("A", 1, [step("a")]), ("B", 1, [step("b")]))], "iteration < 3")]).run()
    assert flow.check().state == "completed"
    assert len(flow.rows("s")) == 3
    assert len({output["variant"] for output in flow.outputs("s")}) == 1


# -- 3.10 cancellation_scope -----------------------------------------------------------------------------------------


def test_s3_10_scope_runs_its_list(world: World) -> None:
    flow = world.start([scope("s", step("a"), step("b")), step("z")]).run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "b", "z"])
    assert flow.tree() == dict.fromkeys("sabz", "completed")


def test_s3_10_cancel_takes_effect_when_the_scope_is_done(world: World) -> None:
    flow = world.start([scope("s", ext("a"), step("d", delay={"duration": 1000}), gate("g"), ext("b")), ext("z")])
    flow.cancel()
    assert (flow.check().state, flow.standing()) == ("waiting", {"a": "ready"})
    world.restart()
    flow.complete("a")
    assert (flow.check().state, flow.standing()) == ("scheduled", {"d": "delayed"})
    flow.pass_time()
    flow.run().answer("g").run()
    assert flow.check().standing() == {"b": "ready"}
    flow.complete("b")
    assert (flow.check().state, flow.standing()) == ("cancelled", {})
    assert {k: v for k, v in flow.tree().items() if k in "sz"} == {"s": "completed", "z": "cancelled"}


def test_s3_10_scope_shields_whatever_is_below_it(world: World) -> None:
    inside = loop("l", [parallel("p", [ext("a")], [try_catch("t", [ext("b")], [step("c")])])], "iteration < 2")
    flow = world.start([parallel("q", [scope("s", inside)], [ext("other")])])
    flow.cancel()
    assert sorted(flow.check().standing()) == ["a", "b"]
    for _ in range(2):
        flow.complete("a")
        flow.fail("b")
        flow.run()
    assert flow.check().state == "cancelled"
    assert (len(flow.rows("c")), flow.tree()["s"], flow.tree()["other"]) == (2, "completed", "cancelled")


def test_s3_10_loop_in_a_scope_goes_on_after_its_pauses(world: World) -> None:
    flow = world.start([scope("s", loop("l", [step("a")], "iteration < 3", poll_interval=60)), step("z")]).run()
    flow.cancel()
    assert flow.check().state == "scheduled"
    assert flow.settle().check().state == "cancelled"
    assert (len(flow.rows("a")), flow.tree()["s"]) == (3, "completed")


def test_s3_10_scope_that_has_not_started_is_not_shielded(world: World) -> None:
    flow = world.start([ext("a"), scope("s", ext("b"))])
    flow.cancel()
    assert (flow.check().state, flow.tree()) == ("cancelled", dict.fromkeys("asb", "cancelled"))


def test_s3_10_failure_inside_fails_the_block(world: World) -> None:
    flow = world.start([try_catch("t", [scope("s", fail("f"), step("a"))], [step("c")])]).run()
    assert (flow.check().state, flow.tree()["s"], flow.tree()["a"]) == ("completed", "failed", "cancelled")


def test_s3_10_failure_inside_outranks_the_cancel(world: World) -> None:
    flow = world.start([scope("s", ext("a"))])
    flow.cancel()
    flow.fail("a")
    assert flow.check().state == "failed"


def test_s3_10_scope_does_not_shield_from_a_race_that_is_decided(world: World) -> None:
    flow = world.start([race("r", [ext("w")], [scope("s", ext("a"))])])
    flow.complete("w")
    assert (flow.check().state, flow.tree()["s"], flow.tree()["a"]) == ("completed", "cancelled", "cancelled")


def test_s9_5_step_that_is_not_cancellable_is_shielded_while_it_runs_or_waits(world: World) -> None:
    own = {"cancellable": False}
    branches = [
        [ext("task", **own), step("next")],
        [gate("gate", **own)],
        [step("sleep", "sleep", {"duration_ms": 100}, **own)],
        [step("delayed", delay={"duration": 1000}, **own)],
        [ext("plain")],
    ]
    flow = world.start([parallel("p", *branches)]).run()
    flow.cancel()
    assert sorted(flow.check().standing()) == ["gate", "sleep", "task"]
    flow.complete("task")
    flow.answer("gate")
    assert flow.settle().check().state == "cancelled"
    tree = flow.tree()
    assert {k: tree[k] for k in ("task", "gate", "sleep")} == dict.fromkeys(("task", "gate", "sleep"), "completed")
    assert {k: tree[k] for k in ("next", "delayed", "plain")} == dict.fromkeys(
        ("next", "delayed", "plain"), "cancelled"
    )


# -- 3.11 saga -------------------------------------------------------------------------------------------------------


def test_s3_11_all_actions_complete(world: World) -> None:
    flow = world.start([saga("s", (step("a"), step("ua")), (step("b"), None), (ext("c"), step("uc"))), step("z")]).run()
    flow.complete("c")
    assert (flow.run().check().state, flow.row_ids()) == ("completed", ["a", "b", "c", "z"])
    assert flow.tree() == dict.fromkeys("sabcz", "completed") | {"ua": "skipped", "uc": "skipped"}
    assert "_error" not in flow.data


def test_s3_11_completed_actions_are_undone_in_reverse_and_the_saga_fails(world: World) -> None:
    undo = "{{ context.data._error.failed_step }}: {{ outputs.a.message }}"
    steps = [
        (say("a", "A"), say("ua", undo)),
        (step("b"), None),
        (step("c"), step("uc")),
        (ext("d"), step("ud")),
        (step("e"), step("ue")),
    ]
    flow = world.start([saga("s", *steps), step("z")]).run()
    flow.fail("d", message="no", details={"code": 7})
    assert flow.run().check().state == "failed"
    assert flow.row_ids() == ["a", "b", "c", "uc", "ua"]
    assert flow.output("ua") == {"message": "s.3: A"}
    assert flow.data["_error"] == {"failed_step": "s.3", "source": "saga", "block_id": "s"}
    assert flow.tree() == {
        **dict.fromkeys(["a", "b", "c", "ua", "uc"], "completed"),
        **dict.fromkeys(["s", "d"], "failed"),
        **dict.fromkeys(["e", "z"], "cancelled"),
        **dict.fromkeys(["ud", "ue"], "skipped"),
    }


def test_s3_11_failed_saga_is_caught_by_a_try_catch_around_it(world: World) -> None:
    flow = world.start([try_catch("t", [saga("s", (step("a"), step("ua")), (fail("b", "no"), None))], [step("c")])])
    assert flow.run().check().state == "completed"
    assert flow.row_ids() == ["a", "ua", "c"]
    error = flow.data["_error"]
    assert (error["source"], error["failed_blocks"], error["message"]) == ("try_catch", ["s"], "no")


def test_s3_11_failing_compensation_is_recorded_and_passed_over(world: World) -> None:
    steps = [(step("a"), step("ua")), (step("b"), ext("ub")), (step("c"), step("uc")), (fail("d"), None)]
    flow = world.start([saga("s", *steps)]).run()
    flow.fail("ub")
    assert flow.run().check().state == "failed"
    assert flow.row_ids() == ["a", "b", "c", "uc", "ua"]
    assert {k: v for k, v in flow.tree().items() if k.startswith("u")} == {
        "ua": "completed",
        "ub": "failed",
        "uc": "completed",
    }
    assert ("ub", 0, "failed") in world.attempts(flow.id)


def test_s3_11_action_skipped_by_its_guard_is_complete_and_not_undone(world: World) -> None:
    steps = [(step("a", when="false"), step("ua")), (step("b"), step("ub")), (fail("c"), step("uc"))]
    flow = world.start([saga("s", *steps)]).run()
    assert (flow.check().state, flow.row_ids()) == ("failed", ["b", "ub"])
    assert (flow.tree()["a"], flow.tree()["ua"]) == ("skipped", "skipped")


def test_s3_11_first_action_fails_with_nothing_to_undo(world: World) -> None:
    flow = world.start([saga("s", (fail("a"), step("ua")), (step("b"), step("ub")))]).run()
    assert (flow.check().state, flow.row_ids()) == ("failed", [])
    assert flow.data["_error"]["failed_step"] == "s.0"


def test_s3_11_empty_saga_completes(world: World) -> None:
    flow = world.start([saga("s"), step("z")]).run()
    assert (flow.check().state, flow.row_ids(), flow.tree()["s"]) == ("completed", ["z"], "completed")


def test_s3_11_retry_and_output_schema_of_an_action_apply(world: World) -> None:
    policy = {"max_attempts": 2, "initial_backoff": 100, "max_backoff": 100}
    schema = {"type": "object", "required": ["id"]}
    flow = world.start([saga("s", (ext("a", retry=policy), step("ua")), (ext("b", output_schema=schema), step("ub")))])
    flow.fail("a", retryable=True)
    assert flow.check().standing() == {"a": "backoff"}
    flow.pass_time()
    flow.complete("a")
    flow.complete("b", {"nothing": 1})
    assert (flow.run().check().state, flow.row_ids()) == ("failed", ["a", "ua"])


def test_s3_11_actions_and_compensations_may_be_composites(world: World) -> None:
    action = parallel("p", [step("p1")], [loop("l", [step("p2")], "iteration < 2")])
    undo = for_each("e", "items", [try_catch("t", [fail("f")], [say("u", "{{ item }}/{{ data._error.source }}")])])
    inner = saga("in", (step("i1"), step("ui1")), (fail("i2"), None))
    flow = world.start([saga("s", (action, undo), (inner, step("never")))], data={"items": [1, 2]}).run()
    assert flow.check().state == "failed"
    assert [b for b in flow.row_ids() if b not in "le"] == ["p1", "p2", "p2", "i1", "ui1", "u", "u"]
    assert flow.outputs("u") == [{"message": "1/try_catch"}, {"message": "2/try_catch"}]
    assert (flow.tree()["in"], flow.tree()["never"], flow.tree()["e"]) == ("failed", "skipped", "completed")


def test_s3_11_sagas_of_concurrent_rounds_read_their_own_error(world: World) -> None:
    undo = ext("u")
    undo["params"] = {"why": "{{ context.data._error.failed_step }}"}
    body = saga("s", (step("a"), undo), (ext("b", when="item == 1"), None), (ext("c"), None))
    flow = world.start([for_each("e", "items", [try_catch("t", [body])], concurrency=2)], data={"items": [1, 2]}).run()
    flow.fail("b")
    flow.fail("c")
    found = {claim.key.iteration: world.work(claim).params for claim in (flow.claim("u"), flow.claim("u"))}
    assert found == {(0,): {"why": "s.1"}, (1,): {"why": "s.2"}}


def test_s5_9_saga_survives_a_crash_between_any_two_steps(world: World) -> None:
    steps = [(step("a"), step("ua")), (step("b"), step("ub")), (fail("c"), None)]
    flow = world.start([saga("s", *steps)])
    flow.run(between=world.restart)
    assert (flow.check().state, flow.row_ids()) == ("failed", ["a", "b", "ub", "ua"])


def test_s9_5_cancel_amid_the_actions_undoes_nothing(world: World) -> None:
    flow = world.start([saga("s", (step("a"), step("ua")), (ext("b"), step("ub")), (step("c"), None))]).run()
    flow.cancel()
    assert (flow.check().state, flow.row_ids(), flow.standing()) == ("cancelled", ["a"], {})
    assert flow.tree() == {
        "a": "completed",
        **dict.fromkeys(["s", "b", "c"], "cancelled"),
        **dict.fromkeys(["ua", "ub"], "skipped"),
    }


def test_s9_5_cancel_amid_the_compensations_ends_them(world: World) -> None:
    flow = world.start([saga("s", (step("a"), step("ua")), (step("b"), ext("ub")), (fail("c"), None))]).run()
    flow.cancel()
    assert (flow.check().state, flow.row_ids()) == ("cancelled", ["a", "b"])
    assert {k: v for k, v in flow.tree().items() if k in ("s", "ua", "ub")} == dict.fromkeys(
        ("s", "ua", "ub"), "cancelled"
    )
    flow.force("scheduled")
    assert flow.check().standing() == {"ub": "ready"}
    flow.complete("ub")
    assert (flow.run().check().state, flow.row_ids()) == ("failed", ["a", "b", "ub", "ua"])


def test_s9_5_compensations_in_a_scope_run_to_their_end(world: World) -> None:
    flow = world.start(
        [scope("x", saga("s", (step("a"), step("ua")), (step("b"), ext("ub")), (fail("c"), None)))]
    ).run()
    flow.cancel()
    flow.complete("ub")
    assert (flow.run().check().state, flow.row_ids()) == ("failed", ["a", "b", "ub", "ua"])


def test_s9_7_retry_goes_on_at_the_failed_action_when_nothing_was_to_be_undone(world: World) -> None:
    flow = world.start([saga("s", (step("a"), None), (ext("b"), step("ub")), (step("c"), step("uc")))]).run()
    for _ in range(2):
        flow.fail("b")
        assert flow.run().check().state == "failed"
        flow.retry()
        assert flow.check().standing() == {"b": "ready"}
    flow.complete("b")
    assert (flow.run().check().state, flow.row_ids()) == ("completed", ["a", "b", "c"])


def test_s9_7_retry_never_goes_forward_over_actions_that_were_undone(world: World) -> None:
    """What was paid back is not delivered: the saga stays failed, and completed compensations are not repeated."""
    flow = world.start([saga("s", (step("pay"), step("pay_back")), (ext("deliver"), None))]).run()
    flow.fail("deliver")
    assert flow.run().check().state == "failed"
    for _ in range(2):
        flow.retry()
        assert (flow.check().state, flow.standing()) == ("failed", {})
    assert flow.row_ids() == ["pay", "pay_back"]
    assert flow.tree() == {**dict.fromkeys(["pay", "pay_back"], "completed"), "s": "failed", "deliver": "failed"}


def test_s9_7_retry_tries_the_compensations_that_failed(world: World) -> None:
    steps = [(step("a"), ext("ua")), (step("b"), step("ub")), (step("c"), ext("uc")), (fail("d"), None)]
    flow = world.start([saga("s", *steps)]).run()
    flow.fail("uc")
    flow.run().fail("ua")
    assert flow.check().state == "failed"
    flow.retry()
    assert flow.check().standing() == {"uc": "ready"}
    flow.complete("uc")
    assert flow.check().standing() == {"ua": "ready"}
    flow.complete("ua")
    assert (flow.run().check().state, flow.row_ids()) == ("failed", ["a", "b", "c", "ub", "uc", "ua"])
    assert flow.tree()["d"] == "failed"


# -- retain_iterations -------------------------------------------------------------------------------------------------


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
