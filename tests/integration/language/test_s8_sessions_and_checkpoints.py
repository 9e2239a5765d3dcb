"""Sections 8.1, 8.6 and 9.11: the audit section, data that flows share, checkpoints."""

import pytest

from orchestrator.errors import PayloadTooLarge
from tests.support.drive import Completed, PureWorld, World, ext, gate, parallel, router, say, step

LIMIT = 262_144


def shared(handler, block_id, **params):
    return step(block_id, handler, {**params, "scope": "session"})


# -- 8.6 sessions ----------------------------------------------------------------------------------------------------


def test_s8_6_flows_of_a_session_read_and_write_the_same_data(world: World) -> None:
    session_id = world.open_session({"n": 1})
    reader = world.start([ext("wait"), say("s", "{{ session.n }}-{{ session.m.k }}")], session_id=session_id)
    body = [
        shared("set_state", "a", key="n", value=2),
        shared("merge_state", "b", values={"x": 1, "y": 2}),
        shared("delete_state", "c", key="x"),
        step("d", "transform", {"target": "session.m.k", "value": "v"}),
        shared("get_state", "e", key="y"),
    ]
    writer = world.start(body, session_id=session_id).run(carry=True).check()
    assert writer.output("e") == {"key": "y", "value": 2}
    assert writer.kv == {}
    assert world.session_data(session_id) == {"n": 2, "y": 2, "m": {"k": "v"}}
    reader.complete("wait")
    assert reader.run(carry=True).check().output("s") == {"message": "2-v"}


def test_s8_6_conditions_read_the_session_live(world: World) -> None:
    session_id = world.open_session({"go": False})
    blocks = [router("r", ("session.go", [step("yes")]), default=[step("no")])]
    early = world.start(blocks, session_id=session_id).run()
    shared_writer = world.start([shared("set_state", "a", key="go", value=True)], session_id=session_id).run()
    late = world.start(blocks, session_id=session_id).run()
    assert (early.check().row_ids(), shared_writer.row_ids(), late.check().row_ids()) == (["no"], ["a"], ["yes"])


def test_s8_6_what_was_read_for_one_step_is_read_anew_for_the_next(world: World) -> None:
    session_id = world.open_session({"n": 1})
    blocks = [ext("x", params={"n": "{{ session.n }}"}), router("r", ("session.n == 2", [step("yes")]))]
    flow = world.start(blocks, session_id=session_id)
    claim = flow.claim("x")
    assert world.work(claim).params == {"n": 1}
    world.start([shared("set_state", "a", key="n", value=2)], session_id=session_id).run()
    flow.finish(claim, Completed(output={}))
    assert flow.run().check().row_ids() == ["x", "yes"]


def test_s8_6_without_a_session_its_root_is_empty_and_writing_fails(world: World) -> None:
    flow = world.start([say("s", "[{{ session.x | none }}]"), shared("set_state", "a", key="k", value=1)]).run()
    assert flow.check().output("s") == {"message": "[none]"}
    assert (flow.state, flow.output("a")["message"]) == ("failed", "the instance has no session")


def test_s8_6_worker_merges_into_the_session(world: World) -> None:
    session_id = world.open_session({"a": 1})
    flow = world.start([ext("w")], session_id=session_id)
    claim = flow.claim("w")
    assert world.work(claim).scope.session == {"a": 1}
    flow.finish(claim, Completed(output={"own": 1, "_session": {"b": 2}}, merges=True))
    assert (flow.check().output("w"), flow.data) == ({"own": 1}, {"own": 1})
    assert world.session_data(session_id) == {"a": 1, "b": 2}


def test_s8_6_writes_of_one_commit_to_one_session_are_all_kept(world: World) -> None:
    session_id = world.open_session({})
    flow = world.start([parallel("p", [ext("a")], [ext("b")])], session_id=session_id)
    other = world.start([ext("c")], session_id=session_id)
    claims = [flow.claim("a"), flow.claim("b"), other.claim("c")]
    named = [(c, Completed(output={"_session": {c.key.block_id: 1}}, merges=True)) for c in claims]
    world.finish(named)
    assert world.session_data(session_id) == {"a": 1, "b": 1, "c": 1}


def test_s8_6_session_that_would_grow_too_large_fails_the_step_for_good(world: World) -> None:
    session_id = world.open_session({"a": 1})
    big = step(
        "a",
        "transform",
        {"target": "session.big", "value": "x" * LIMIT},
        retry={"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1},
    )
    flow = world.start([big], session_id=session_id).run()
    assert (flow.check().state, world.session_data(session_id)) == ("failed", {"a": 1})
    assert "session would be" in flow.output("a")["message"]


# -- 8.1, 8.2 context ------------------------------------------------------------------------------------------------


def test_s8_2_audit_is_hidden_unless_it_is_asked_for(world: World) -> None:
    entries = [{"timestamp": "2026-01-01T00:00:00Z", "event": "made", "details": {}}]
    blocks = [
        parallel(
            "p",
            [ext("open")],
            [ext("closed", context_access={"data": True})],
            [ext("asked", context_access={"audit": True})],
        )
    ]
    flow = world.start(blocks, audit=entries)
    seen = {name: world.work(flow.claim(name)).scope.audit for name in ("open", "closed", "asked")}
    assert seen == {"open": entries, "closed": None, "asked": entries}


def test_s2_3_signal_that_would_make_the_context_too_large_is_refused(world: World) -> None:
    flow = world.start([ext("a")], data={"k": 1})
    with pytest.raises(PayloadTooLarge):
        flow.signal("update_context", {"data": {"big": "x" * LIMIT}})
    assert (flow.check().data, flow.state) == ({"k": 1}, "waiting")


def test_s2_3_answer_that_the_context_has_no_room_for_leaves_the_gate_open(world: World) -> None:
    flow = world.start([step("a", wait_for_signal=True)]).run()
    with pytest.raises(PayloadTooLarge):
        flow.signal({"custom": "a"}, "x" * LIMIT)
    assert flow.check().standing() == {"a": "gate"}
    assert flow.signal({"custom": "a"}, "short").run().check().state == "completed"


def test_s2_3_early_answer_that_the_context_has_no_room_for_is_swallowed(world: World) -> None:
    flow = world.start([ext("before"), step("a", wait_for_signal=True)])
    flow.signal({"custom": "a"}, "x" * LIMIT)
    flow.complete("before")
    assert flow.run().check().standing() == {"a": "gate"}


@pytest.mark.parametrize("target", ["data.big", "context.data.a.b"])
def test_s2_3_transform_that_would_make_the_context_too_large_fails(world: World, target: str) -> None:
    flow = world.start([step("a", "transform", {"target": target, "value": "x" * LIMIT})], data={"k": 1}).run()
    assert (flow.check().state, flow.data) == ("failed", {"k": 1})


def test_s5_5_human_answer_still_counts_in_a_full_context(world: World) -> None:
    flow = world.start([gate("g")], data={"k": 1}).answer("g").run()
    assert (flow.check().state, flow.data) == ("completed", {"k": 1, "g": "yes"})


# -- 9.11 checkpoints ------------------------------------------------------------------------------------------------


def test_s9_11_steps_save_and_load_checkpoints(world: World) -> None:
    body = [
        step("none", "load_checkpoint"),
        *(step(f"s{n}", "save_checkpoint", {"data": {"n": n}, "keep": 2}) for n in range(3)),
        step("load", "load_checkpoint"),
    ]
    flow = world.start(body).run()
    assert flow.check().output("none") == {"found": False, "data": None, "created_at": None}
    loaded = flow.output("load")
    assert (loaded["found"], loaded["data"]) == (True, {"n": 2})
    assert loaded["created_at"].endswith("Z")
    assert world.checkpoints(flow.id) == [{"n": 2}, {"n": 1}]


def test_s9_11_bad_keep_fails_the_step() -> None:
    flow = PureWorld().start([step("s", "save_checkpoint", {"data": 1, "keep": -1})]).run()
    assert flow.output("s")["message"] == "keep must be a whole number, not below 0"
