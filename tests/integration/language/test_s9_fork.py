"""Copies of flows that go on from a block, and dry runs (section 9.9)."""

import pytest

from orchestrator.core.outcomes import Completed
from orchestrator.errors import InvalidArgument
from tests.support.drive import World, ext, fail, for_each, gate, parallel, say, step, try_catch


def shape(flow):
    return [(row.block_id, row.iteration, row.output, row.attempt) for row in flow.rows()]


# -- forks -----------------------------------------------------------------------------------------------------------


def test_s9_9_fork_has_the_rows_before_the_block_and_runs_the_rest(world: World) -> None:
    flow = world.start([say("a", 1), say("b", "{{ outputs.a }}"), say("c", "{{ outputs.b }}")]).run()
    before, rows = world.instance(flow.id), flow.rows()
    fork = flow.fork("b")
    assert fork.check().row_ids() == ["a"]
    assert world.executed == [("a", (), 0), ("b", (), 0), ("c", (), 0)]
    assert fork.run().check().state == "completed"
    assert shape(fork) == shape(flow)
    assert [block_id for block_id, _, _ in world.executed[3:]] == ["b", "c"]
    assert fork.tree() == dict.fromkeys("abc", "completed")
    assert (world.instance(flow.id), flow.rows()) == (before, rows)
    assert world.metadata(fork.id) == {"forked_from": str(flow.id), "forked_at_block": "b", "sandbox": True}
    assert fork.instance.dry_run is True
    assert fork.instance.run_id != flow.instance.run_id


def test_s9_9_state_and_data_are_copied_and_go_their_own_way(world: World) -> None:
    blocks = [
        step("k", "set_state", {"key": "k", "value": 1}),
        say("b", "{{ state.k }}:{{ context.data.n }}:{{ context.config.c }}"),
        step("l", "set_state", {"key": "k", "value": 2}),
    ]
    flow = world.start(blocks, data={"n": 1, "m": 1}, config={"c": 3}).run()
    fork = flow.fork("b", dry_run=False, n=5)
    assert fork.run().check().output("b") == {"message": "2:5:3"}
    assert (fork.data, flow.data) == ({"n": 5, "m": 1}, {"n": 1, "m": 1})
    flow.fork("k").run()
    assert flow.kv == {"k": 2}
    assert fork.instance.dry_run is False


def test_s9_9_copied_composites_are_not_run_again(world: World) -> None:
    inside = [parallel("p", [say("x", "{{ item }}")], [ext("w")])]
    flow = world.start([for_each("f", "data.xs", inside), say("b", "{{ outputs.x }}")], data={"xs": [1, 2]}).run()
    flow.complete("w")
    flow.run().complete("w")
    flow.run()
    fork = flow.fork("b", dry_run=False)
    assert fork.run().check().state == "completed"
    assert shape(fork) == shape(flow)
    assert fork.tree() == flow.tree()
    assert flow.executed().count("x") == 2
    assert fork.resume_from("f") == len(flow.rows())
    assert fork.run().state == "waiting"


def test_s9_9_living_flow_is_forked_in_front_of_what_it_does(world: World) -> None:
    flow = world.start([say("a", 1), parallel("p", [say("x", 1)], [ext("w")]), say("z", 2)]).run()
    fork = flow.fork("p", dry_run=False)
    assert fork.run().state == "waiting"
    fork.complete("w")
    assert fork.run().check().state == "completed"
    behind = flow.fork("z")
    assert behind.run().check().state == "completed"
    assert behind.row_ids() == ["a", "x", "z"]
    assert behind.tree()["p"] == "skipped"
    assert flow.check().state == "waiting"


def test_s9_9_failed_block_in_front_is_skipped_and_retry_goes_on_in_the_copy(world: World) -> None:
    flow = world.start([say("a", 1), fail("b"), say("c", 1), fail("d")]).run()
    fork = flow.fork("c")
    assert fork.run().check().state == "failed"
    assert fork.row_ids() == ["a", "c", "d"]
    fork.retry()
    assert fork.run().check().state == "failed"
    assert fork.row_ids() == ["a", "c", "d"]
    assert fork.tree() == {"a": "completed", "b": "skipped", "c": "completed", "d": "failed"}


def test_s9_9_injected_blocks_are_part_of_the_copy(world: World) -> None:
    flow = world.start([say("a", 1), ext("w")]).run()
    flow.inject(say("x", 2), try_catch("t", [say("y", 3)]))
    flow.complete("w")
    flow.run()
    fork = flow.fork("x")
    assert fork.run().check().row_ids() == ["a", "w", "x", "y"]
    fork.inject(say("more", 4))
    assert fork.resume_from("t") == 1
    assert fork.run().check().row_ids() == ["a", "w", "x", "y", "more"]
    assert flow.fork("t").run().row_ids() == ["a", "w", "x", "y"]


def test_s9_9_signals_are_delivered_first_and_a_fork_can_be_forked(world: World) -> None:
    flow = world.start([say("a", 1), gate("g"), say("b", "{{ context.data.g }}")]).run().answer("g").run()
    answer = {"signal_type": {"custom": "human_input:g"}, "payload": {"value": "no"}}
    fork = flow.fork("g", answer)
    assert fork.run().check().output("b") == {"message": "no"}
    assert flow.output("b") == {"message": "yes"}
    paused = fork.fork("b", "pause").run()
    assert paused.check().state == "paused"
    assert paused.resume().run().output("b") == {"message": "no"}
    assert world.metadata(paused.id)["forked_from"] == str(fork.id)


def test_s9_9_fork_at_a_block_that_is_no_root_block_is_refused(world: World) -> None:
    flow = world.start([parallel("p", [say("x", 1)])]).run()
    for block_id in ("x", "nobody"):
        with pytest.raises(InvalidArgument, match="not a root block"):
            flow.fork(block_id)


def test_s9_9_session_can_be_read_by_a_dry_run_and_is_not_written(world: World) -> None:
    session_id = world.open_session({"n": 1})
    blocks = [
        step("s", "set_state", {"scope": "session", "key": "n", "value": 2}),
        step("t", "transform", {"target": "session.m", "value": 3}),
        say("b", "{{ session.n }}"),
    ]
    dry = world.start(blocks, session_id=session_id, dry_run=True).run()
    assert dry.check().output("b") == {"message": 1}
    assert world.session_data(session_id) == {"n": 1}
    dry.fork("s", dry_run=False).run()
    assert world.session_data(session_id) == {"n": 2, "m": 3}


# -- dry runs --------------------------------------------------------------------------------------------------------


def test_s9_9_worker_steps_of_a_dry_run_are_stubs_that_nobody_is_asked_for(world: World) -> None:
    flow = world.start(
        [
            ext("w", params={"n": "{{ context.data.n }}"}),
            say("b", "{{ outputs.w.handler }}"),
        ],
        data={"n": 1},
        dry_run=True,
    )
    assert flow.steps("w") == []
    assert flow.run().check().state == "completed"
    assert flow.output("w") == {"dry_run": True, "handler": "external", "would": {"params": {"n": 1}}}
    assert flow.output("b") == {"message": "external"}
    assert flow.data == {"n": 1}
    assert world.attempts(flow.id)[0] == ("w", 0, "dry_run")


@pytest.mark.parametrize("handler", ["https://example.com/step", "grpc://example.com:443/do"])
def test_s9_9_endpoint_and_grpc_steps_of_a_dry_run_are_stubs(world: World, handler) -> None:
    flow = world.start([step("e", handler, {"x": 1})], dry_run=True)
    assert flow.run().check().state == "completed"
    assert flow.output("e") == {"dry_run": True, "handler": handler, "would": {"params": {"x": 1}}}


def test_s9_9_wrong_template_fails_a_stub_as_it_fails_the_step(world: World) -> None:
    flow = world.start([ext("w", params={"n": "{{ nobody.knows | nothing }}"})], dry_run=True).run()
    assert flow.check().state == "failed"


def test_s9_9_stubs_wait_at_gates_and_stand_in_every_composite(world: World) -> None:
    body = [parallel("p", [ext("w")], [gate("g")])]
    flow = world.start([for_each("f", "data.xs", body)], data={"xs": [1, 2]}, dry_run=True).run()
    assert flow.state == "waiting"
    approving = world.start(
        [for_each("f", "data.xs", body)], data={"xs": [1, 2]}, dry_run=True, dry_run_auto_approve=True
    )
    assert approving.run().check().state == "completed"
    assert len(approving.rows("w")) == 2
    fork = approving.fork("f")
    assert fork.run().check().state == "completed"


def test_s9_9_cached_output_of_the_source_is_used_and_stubs_are_not_cached(world: World) -> None:
    flow = world.start([ext("w", cache_key="k"), ext("v", cache_key="v"), ext("u", cache_key="v")])
    flow.complete("w", {"n": 1})
    dry = flow.fork("w")
    assert dry.run().check().state == "completed"
    assert dry.output("w") == {"n": 1}
    assert dry.output("u")["dry_run"] is True
    assert set(dry.kv) == {"_cache:k"}


def test_s9_9_interceptors_of_workers_are_not_called_in_a_dry_run(world: World) -> None:
    called = {"before_step": {"handler": "external"}, "after_step": {"handler": "external"}}
    flow = world.start([say("a", 1)], members={"interceptors": called}, dry_run=True).run()
    assert flow.check().state == "completed"
    assert flow.asides() == []


@pytest.mark.parametrize(
    ("handler", "params", "placeholders"),
    [
        ("http_request", {"url": "https://example.com/x", "method": "POST"}, {"status", "body", "would"}),
        ("send_signal", {"instance_id": "{{ instance.id }}", "signal_type": "pause"}, {"signal_id", "would"}),
        ("emit_event", {"trigger_slug": "t"}, {"instance_id", "sequence_name", "deduped", "would"}),
        ("human_review", {"notify_url": "https://example.com"}, {"type", "status", "reviewer", "choices"}),
    ],
)
def test_s9_9_side_effecting_built_ins_say_what_they_would_do(world: World, handler, params, placeholders) -> None:
    if "instance_id" in params:
        params = {**params, "instance_id": "00000000-0000-0000-0000-000000000001"}
    flow = world.start([step("s", handler, params)], dry_run=True).run()
    output = flow.check().output("s")
    assert (output["dry_run"], output["handler"]) == (True, handler)
    assert placeholders <= set(output)
    wrong = world.start([step("s", "http_request", {"url": "ftp://x"})], dry_run=True).run()
    assert wrong.state == "failed"


def test_s9_9_pure_built_ins_and_those_of_the_flow_itself_run_in_a_dry_run(world: World) -> None:
    blocks = [
        step("k", "set_state", {"key": "k", "value": 1}),
        step("c", "save_checkpoint", {"data": 7}),
        step("t", "transform", {"target": "data.n", "value": 2}),
        step("m", "self_modify", {"blocks": [say("x", "{{ state.k }}:{{ context.data.n }}")]}),
    ]
    flow = world.start(blocks, dry_run=True).run()
    assert flow.check().output("x") == {"message": "1:2"}
    assert world.checkpoints(flow.id) == [7]


def test_s9_9_children_of_a_dry_run_are_dry_runs(world: World) -> None:
    world.define("kid", [ext("w")])
    flow = world.start([{"type": "sub_sequence", "id": "s", "sequence_name": "kid"}], dry_run=True)
    assert flow.run().check().state == "completed"
    assert flow.children()[0].output("w")["dry_run"] is True


def test_s9_9_late_report_cannot_reach_a_fork(world: World) -> None:
    flow = world.start([ext("w")])
    claim = flow.claim("w")
    fork = flow.fork("w", dry_run=False)
    flow.finish(claim, Completed(output={"n": 1}))
    assert (flow.state, fork.state) == ("completed", "waiting")
