"""Blocks injected into a flow while it lives: sections 3.12, 9.10, 11 (`self_modify`)."""

import pytest

from orchestrator.errors import InvalidArgument
from tests.support.drive import RETRY, World, ext, fail, for_each, gate, loop, parallel, say, step, try_catch


def modify(block_id, blocks, **params):
    return step(block_id, "self_modify", {"blocks": blocks, **params})


def noops(*ids):
    return [step(block_id) for block_id in ids]


# -- placement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "order"),
    [(0, ["w", "x", "y", "a", "b"]), (1, ["w", "a", "x", "y", "b"]), (99, ["w", "a", "b", "x", "y"]), (None, None)],
)
def test_s9_10_position_counts_among_the_root_blocks_that_have_not_started(world: World, position, order) -> None:
    flow = world.start([ext("w"), step("a"), step("b")])
    flow.inject(*noops("x", "y"), position=position)
    flow.complete("w")
    flow.run()
    assert flow.check().state == "completed"
    assert flow.row_ids() == (order or ["w", "a", "b", "x", "y"])
    assert flow.tree() == dict.fromkeys("wabxy", "completed")
    assert flow.instance.injected == 2


def test_s9_10_later_injection_at_0_stands_before_the_earlier_one(world: World) -> None:
    flow = world.start([ext("w"), step("a")])
    flow.inject(step("x"), position=0).inject(step("y"), position=0).inject(step("z"), position=1).inject(step("e"))
    flow.complete("w")
    assert flow.run().row_ids() == ["w", "y", "z", "x", "a", "e"]


def test_s9_10_injection_into_the_last_block_is_still_run(world: World) -> None:
    flow = world.start([ext("w")])
    flow.inject(step("x"))
    flow.complete("w")
    assert flow.run().check().row_ids() == ["w", "x"]


def test_s9_10_flow_that_has_not_started_begins_with_what_is_injected_at_0(world: World) -> None:
    flow = world.start([step("a")], not_before=world.now().replace(year=2099))
    flow.inject(step("x"), position=0)
    assert flow.check().state == "scheduled"
    flow.pass_time()
    assert flow.run().check().row_ids() == ["x", "a"]


def test_s9_10_injection_while_a_composite_runs_waits_for_its_end(world: World) -> None:
    flow = world.start([parallel("p", [ext("l")], [ext("r")]), step("a")])
    flow.inject(step("x"), position=0)
    flow.complete("l")
    flow.run()
    assert flow.check().row_ids() == ["l"]
    flow.complete("r")
    assert flow.run().check().row_ids() == ["l", "r", "x", "a"]


@pytest.mark.parametrize("state", ["waiting at a gate", "delayed", "paused", "backing off"])
def test_s9_10_blocks_join_in_every_state(world: World, state) -> None:
    first = {
        "waiting at a gate": gate("w"),
        "delayed": step("w", delay={"duration": 60_000}),
        "paused": step("w", "sleep", {"duration_ms": 60_000}),
        "backing off": ext("w", retry=RETRY),
    }[state]
    flow = world.start([first, step("a")]).run()
    if state == "paused":
        flow.pause()
    if state == "backing off":
        flow.fail("w", retryable=True)
    before = flow.check().state
    flow.inject(step("x"), position=0)
    assert flow.check().state == before
    if state == "paused":
        flow.resume()
    if state == "waiting at a gate":
        flow.answer("w")
    flow.settle()
    if state == "backing off":
        flow.complete("w")
        flow.settle()
    assert flow.check().state == "completed"
    assert flow.row_ids()[-3:] == ["w", "x", "a"]


# -- what is injected ------------------------------------------------------------------------------------------------


def test_s9_10_composites_and_gates_can_be_injected(world: World) -> None:
    flow = world.start([ext("w")])
    flow.inject(
        for_each("each", "items", [say("e", "{{ item }}")]),
        loop("l", [step("b")], max_iterations=2),
        try_catch("t", [fail("f")], [say("c", "{{ context.data._error.block_id }}")]),
        step("late", delay={"duration": 1000}),
        gate("g"),
    )
    flow.complete("w", {"items": [1, 2]})
    flow.settle()
    assert flow.check().state == "waiting"
    flow.answer("g")
    flow.settle()
    assert flow.check().state == "completed"
    assert [row["message"] for row in flow.outputs("e")] == [1, 2]
    assert len(flow.rows("b")) == 2
    assert flow.output("c") == {"message": "t"}
    assert set(flow.tree()) == {"w", "each", "e", "l", "b", "t", "f", "c", "late", "g"}


def test_s9_10_injected_step_reads_what_came_before_and_is_read_after(world: World) -> None:
    flow = world.start([ext("w"), say("a", "{{ outputs.x.message }}")])
    flow.inject(say("x", "{{ outputs.w.n }}!"), position=0)
    flow.complete("w", {"n": 7})
    flow.run()
    assert flow.output("a") == {"message": "7!"}


@pytest.mark.parametrize(
    "blocks", [[step("a")], [step("w")], [parallel("p", [step("x")], [step("a")])], [parallel("inner", [step("y")])]]
)
def test_s9_10_ids_that_are_taken_are_refused_and_nothing_is_stored(world: World, blocks) -> None:
    flow = world.start([ext("w"), try_catch("a", [step("inner")])])
    with pytest.raises(InvalidArgument, match=r"duplicate block id: (a|w|inner)"):
        flow.inject(*blocks)
    assert flow.instance.injected == 0
    flow.inject(step("x"))
    with pytest.raises(InvalidArgument, match="duplicate block id: x"):
        flow.inject(step("x"))
    assert flow.instance.injected == 1


# -- ended flows -----------------------------------------------------------------------------------------------------


def test_s9_10_failed_flow_only_stores_the_blocks_and_runs_them_after_a_retry(world: World) -> None:
    flow = world.start([step("a"), ext("w"), step("b")]).run()
    flow.fail("w")
    moves = world.moves(flow.id)
    flow.inject(step("x"), position=0)
    assert flow.check().state == "failed"
    assert world.moves(flow.id) == moves
    flow.retry()
    flow.complete("w")
    assert flow.run().check().row_ids() == ["a", "w", "x", "b"]
    assert flow.state == "completed"


def test_s9_10_completed_flow_runs_the_blocks_when_it_is_set_going_again(world: World) -> None:
    flow = world.start([step("a")]).run()
    flow.inject(step("x"), position=0)
    assert flow.check().state == "completed"
    flow.force("scheduled")
    assert flow.run().check().row_ids() == ["a", "x"]
    assert flow.state == "completed"


def test_s9_7_injected_block_that_failed_is_retried_alone(world: World) -> None:
    flow = world.start([ext("w")])
    flow.inject(parallel("p", [step("l")], [ext("r")]))
    flow.complete("w")
    flow.run()
    flow.fail("r")
    assert flow.check().state == "failed"
    flow.retry()
    flow.complete("r")
    assert flow.check().state == "completed"
    assert flow.row_ids() == ["w", "l", "r"]


# -- self_modify -----------------------------------------------------------------------------------------------------


def test_s11_self_modify_runs_its_blocks_next_and_resolves_their_templates_then(world: World) -> None:
    blocks = [say("x", "{{ outputs.a.message }}-{{ data.n }}")]
    flow = world.start([say("a", "hi"), modify("m", blocks, position=0), step("b")], data={"n": 1}).run(carry=True)
    assert flow.check().row_ids() == ["a", "m", "x", "b"]
    assert flow.output("m") == {"_self_modify": True, "blocks": blocks, "position": 0, "injected_count": 1}
    assert flow.output("x") == {"message": "hi-1"}


@pytest.mark.parametrize("written", ["array", "text"])
def test_s11_self_modify_takes_blocks_that_a_template_yields(world: World, written) -> None:
    blocks = [say("x", "planned")] if written == "array" else '[{"type":"step","id":"x","handler":"noop"}]'
    flow = world.start([modify("m", "{{ data.plan }}")], data={"plan": blocks}).run()
    assert flow.check().row_ids() == ["m", "x"]
    assert flow.output("m")["injected_count"] == 1


def test_s11_self_modify_inside_a_composite_adds_to_the_root_list(world: World) -> None:
    flow = world.start([parallel("p", [modify("m", noops("x"), position=0), step("i")]), step("b")]).run()
    assert flow.check().row_ids() == ["m", "i", "x", "b"]


def test_s11_injected_self_modify_can_inject_again(world: World) -> None:
    inner = modify("m2", noops("y"), position=0)
    flow = world.start([modify("m", [inner], position=0), step("b")]).run(carry=True)
    assert flow.check().row_ids() == ["m", "m2", "y", "b"]


def test_s11_self_modify_with_a_taken_id_fails_for_good(world: World) -> None:
    flow = world.start([try_catch("t", [{**modify("m", noops("b")), "retry": RETRY}], [step("c")]), step("b")]).run()
    assert flow.check().row_ids() == ["c", "b"]
    assert flow.data["_error"]["message"] == "duplicate block id: b"
    assert flow.instance.injected == 0


# -- crashes and other processes -------------------------------------------------------------------------------------


def test_s9_10_injected_blocks_survive_restarts(world: World) -> None:
    flow = world.start([ext("w"), step("b")])
    flow.inject(loop("l", [say("x", "{{ outputs.w.n }}")], max_iterations=3), position=0)
    flow.complete("w", {"n": 1})
    flow.run(between=world.restart)
    assert flow.check().row_ids() == ["w", "x", "l", "x", "l", "x", "l", "b"]
