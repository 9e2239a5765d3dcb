"""Sections 3.9 and 3.10: a_b_splits and cancellation scopes."""

from hashlib import sha256

from tests.support.drive import Flow, World, ext, fail, gate, loop, parallel, race, say, scope, split, step, try_catch

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
