"""Calls beside the flow: what is held back for whom, and what keeps apart from the flow."""

import pytest

from orchestrator.core.model import BESIDE, NodeKey, is_beside
from orchestrator.core.outcomes import Completed, Suspended
from tests.support.drive import PureWorld, race, say, step, timedelta

REDACTED = {"interceptors": {"after_step": {"handler": "redact", "params": "{{ step.output }}"}}}


@pytest.mark.parametrize(("known", "standing"), [({"redact"}, {"a": "intercepted"}), (set(), {})])
def test_an_output_is_held_back_only_for_a_handler_that_somebody_runs(
    known: set[str], standing: dict[str, str]
) -> None:
    flow = PureWorld(known_handlers=known).start([step("a")], members=REDACTED).run()
    assert (flow.check().standing(), flow.called("_interceptor:after:a")) == (standing, [{}])
    flow.answer_call("_interceptor:after:a", Completed(output={"output": "gone"}, merges=True))
    assert flow.check().state == "completed"
    assert flow.output("a") == ("gone" if known else {})
    row = flow.output("_interceptor:after:a")
    assert row["_result"] == {"output": "gone"}


def test_a_race_is_not_decided_by_an_output_that_is_held_back() -> None:
    blocks = [race("r", [step("a")], [step("b", "external")]), say("z", "{{ outputs.a | nothing }}")]
    flow = PureWorld(known_handlers={"redact"}).start(blocks, members=REDACTED).run()
    assert flow.check().standing() == {"a": "intercepted", "b": "ready"}
    flow.complete("b", {"won": 1})
    flow.answer_call("_interceptor:after:b", Completed(output={}))
    flow.run()
    assert (flow.check().tree()["a"], flow.outputs("a"), flow.tree()["b"]) == ("cancelled", [], "completed")
    flow.answer_call("_interceptor:after:a", Completed(output={"output": "late"}))
    flow.answer_call("_interceptor:after:z", Completed(output={}))
    assert (flow.check().state, flow.outputs("a"), flow.output("z")) == ("completed", [], {"message": "nothing"})
    assert "_interceptor:after:a" not in flow.row_ids()


def test_a_call_that_asks_to_sleep_is_woken_once() -> None:
    world = PureWorld()
    flow = world.start([step("a")], members={"interceptors": {"on_complete": {"handler": "outside"}}}).run()
    flow.answer_call("_interceptor:on_complete", Suspended(duration=timedelta(seconds=2), output={"x": 1}))
    (key,) = world.alarms(flow.id)
    assert not world.fire(flow.id, key)
    flow.ring()
    assert flow.check().output("_interceptor:on_complete") == {"_result": {"x": 1}}
    assert not world.fire(flow.id, key)


def test_the_end_of_a_call_does_not_change_when_the_instance_was_updated() -> None:
    flow = PureWorld().start([step("a")], members={"interceptors": {"on_complete": {"handler": "outside"}}}).run()
    before = flow.instance
    flow.answer_call("_interceptor:on_complete", Completed(output=1))
    assert flow.instance.updated_at == before.updated_at
    assert flow.instance.version == before.version + 1


def test_no_node_is_beside_the_flow() -> None:
    assert is_beside(NodeKey("a", (BESIDE, 1, 1)))
    assert not is_beside(NodeKey("a"))
    assert not is_beside(NodeKey("a", (0, 1)))
