"""Section 3.11: sagas."""

from tests.support.drive import World, ext, fail, for_each, loop, parallel, saga, say, scope, step, try_catch


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
