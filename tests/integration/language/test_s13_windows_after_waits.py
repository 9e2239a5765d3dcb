"""Windows that shut while something holds a step up, and steps without a handler call (§13.1, §14)."""

from datetime import timedelta

from tests.support.drive import PureWorld, World, gate, step

NAP = step("n", "sleep", {"duration_ms": 60_000})
SAY = {"handler": "log", "params": {"message": "{{ step.id }}"}}


# -- 13.1 windows that shut while something else holds a step up ----------------------------------------------------


WINDOW = {"start_hour": 12, "end_hour": 13}
"""Shuts an hour after the clock of these worlds starts."""


def test_s13_1_resume_outside_the_window_waits_for_its_opening() -> None:
    world = PureWorld()
    flow = world.start([step("a", send_window=WINDOW)]).pause()
    assert flow.standing() == {"a": "held"}
    world.elapse(flow.id, timedelta(hours=2))
    flow.resume()
    assert (flow.check().state, flow.standing()) == ("scheduled", {"a": "window"})
    flow.pass_time()
    assert flow.run().check().state == "completed"


def test_s13_1_answer_outside_the_window_waits_for_its_opening_and_is_not_asked_for_again() -> None:
    world = PureWorld()
    flow = world.start([gate("g", send_window=WINDOW)])
    assert flow.check().state == "waiting"
    world.elapse(flow.id, timedelta(hours=2))
    flow.answer("g")
    assert (flow.check().state, flow.standing()) == ("scheduled", {"g": "window"})
    flow.pass_time()
    assert flow.run().check().state == "completed"
    assert len(flow.outputs("g")) == 2


# -- 14, 5.7 interceptors around a step that is answered from the cache ----------------------------------------------


def test_s14_step_that_is_answered_from_the_cache_has_both_rows(world: World) -> None:
    members = {"interceptors": {"before_step": SAY, "after_step": SAY}}
    flow = world.start([step("a", cache_key="k"), step("b", cache_key="k")], members=members).run()
    assert flow.check().state == "completed"
    assert [name for name in flow.executed() if not name.startswith("_")] == ["a"]
    around = lambda block: [f"_interceptor:before:{block}", block, f"_interceptor:after:{block}"]  # noqa: E731
    assert flow.row_ids() == [*around("a"), *around("b")]


def test_s9_10_self_modify_without_blocks_changes_nothing(world: World) -> None:
    """Only the endpoint refuses an empty array: a planner that has nothing to add says so with one (§11)."""
    flow = world.start([step("m", "self_modify", {"blocks": []}), step("z")]).run()
    assert flow.check().state == "completed"
    assert flow.output("m") == {"_self_modify": True, "blocks": [], "position": None, "injected_count": 0}
