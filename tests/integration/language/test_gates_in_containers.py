"""Every gate in every container (§5.1): a step waits, is skipped, answered or too late wherever it stands.

The gated step is always `g`; `z` stands behind the container in the root list. Containers in which a failure of `g` is
handled, or is passed over, are marked: there the flow goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.support.drive import (
    Flow,
    PureWorld,
    World,
    fail,
    for_each,
    loop,
    parallel,
    race,
    router,
    saga,
    scope,
    split,
    step,
    sub_sequence,
    try_catch,
)

Block = Mapping[str, Any]


@dataclass(frozen=True)
class Container:
    """Where the gated step stands.

    Args:
        around: Builds the blocks around it.
        ends_failed: Whether the flow fails although `g` does well.
        forgives: Whether the flow goes on when `g` fails.
    """

    around: Callable[[Block], Sequence[Block]]
    ends_failed: bool = False
    forgives: bool = False


CONTAINERS = {
    "root": Container(lambda g: [g]),
    "parallel": Container(lambda g: [parallel("c", [g], [step("side")])]),
    "race": Container(lambda g: [race("c", [g])]),
    "loop": Container(lambda g: [loop("c", [g], max_iterations=1)]),
    "for_each": Container(lambda g: [for_each("c", "items", [g])]),
    "for_each at once": Container(lambda g: [for_each("c", "items", [g], concurrency=2)]),
    "router": Container(lambda g: [router("c", ("true", [g]))]),
    "try": Container(lambda g: [try_catch("c", [g], [step("caught")])], forgives=True),
    "catch": Container(lambda g: [try_catch("c", [fail("f")], [g])]),
    "finally": Container(lambda g: [try_catch("c", [step("t")], [], [g])]),
    "split": Container(lambda g: [split("c", ("a", 1, [g]), ("b", 0, []))]),
    "scope": Container(lambda g: [scope("c", g)]),
    "saga action": Container(lambda g: [saga("c", (g, None), (step("second"), None))]),
    "saga compensation": Container(
        lambda g: [saga("c", (step("done"), g), (fail("f"), None))], ends_failed=True, forgives=False
    ),
    "sub_sequence": Container(lambda g: [sub_sequence("c", "gated")]),
    "six deep": Container(
        lambda g: [
            parallel(
                "p",
                [
                    try_catch(
                        "t",
                        [
                            for_each(
                                "e", "items", [router("r", ("true", [loop("l", [scope("s", g)], max_iterations=1)]))]
                            )
                        ],
                    )
                ],
                [step("side")],
            )
        ],
        forgives=True,
    ),
}

cases = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS.keys())


def begin(world: World, container: Container, gated: Block) -> Flow:
    """Start a flow and run it up to the gate."""
    world.define("gated", [gated])
    flow = world.start([*container.around(gated), step("z")], data={"items": [1]})
    return advance(flow)


def advance(flow: Flow) -> Flow:
    """Run the flow and its child until nothing is ready."""
    while True:
        ran = len(flow.world.executed)
        for each in (flow, *flow.children()):
            each.run().check()
        if len(flow.world.executed) == ran:
            return flow


def holder(flow: Flow) -> Flow:
    """The instance that the gated step is in."""
    return (flow.children() or [flow])[0]


def after(flow: Flow) -> Flow:
    """Let time pass until the gate's moment has come, and go on."""
    assert holder(flow).pass_time()
    return advance(flow)


def ended(flow: Flow, container: Container, *, g: str) -> None:
    """Check how the flow has ended, given how the gated step has."""
    goes_on = not container.ends_failed and (g != "failed" or container.forgives)
    assert flow.state == ("completed" if goes_on else "failed")
    assert holder(flow).tree()["g"] == g
    assert flow.executed().count("z") == goes_on


@cases
def test_s5_3_delay_waits_for_its_moment(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", delay={"duration": 60_000}))
    assert holder(flow).standing() == {"g": "delayed"}
    assert holder(flow).state == "scheduled"
    assert holder(flow).due_in("g") == pytest.approx(60, abs=30)
    assert "g" not in flow.executed()
    ended(after(flow), container, g="completed")
    assert flow.executed().count("g") == 1


@cases
def test_s13_1_window_waits_for_its_opening(world: World, container: Container) -> None:
    hour = (world.now() + timedelta(hours=2)).hour
    flow = begin(world, container, step("g", send_window={"start_hour": hour, "end_hour": (hour + 1) % 24}))
    assert holder(flow).standing() == {"g": "window"}
    assert holder(flow).state == "scheduled"
    assert "g" not in flow.executed()
    if isinstance(world, PureWorld):  # the clock of the other world is the real one, and its hours do not pass
        ended(after(flow), container, g="completed")
        assert flow.executed().count("g") == 1


@cases
def test_s5_2_false_guard_skips(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", when="1 == 2", delay={"duration": 60_000}))
    ended(flow, container, g="skipped")
    assert holder(flow).rows("g") == []
    assert "g" not in flow.executed()


@cases
def test_s5_2_guard_that_cannot_be_read_fails_the_step(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", when="1 =="))
    ended(flow, container, g="failed")
    assert "g" not in flow.executed()


@cases
def test_s5_5_human_gate_waits_for_its_answer(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", wait_for_input={"prompt": "Go on?", "store_as": "said"}))
    assert holder(flow).standing() == {"g": "gate"}
    assert (flow.state, holder(flow).state) == ("waiting", "waiting")
    holder(flow).answer("g", "perhaps")
    assert holder(flow).standing() == {"g": "gate"}
    holder(flow).answer("g", "yes")
    advance(flow)
    ended(flow, container, g="completed")
    assert [row.output.get("value") for row in holder(flow).rows("g")] == ["yes", None]
    assert holder(flow).data["said"] == "yes"
    assert flow.executed().count("g") == 1


@cases
def test_s5_5_human_gate_that_nobody_answers_fails_the_step(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", wait_for_input={"timeout": 60_000}))
    ended(after(flow), container, g="failed")
    assert "g" not in flow.executed()


@cases
def test_s5_5_escalated_gate_counts_as_done(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", wait_for_input={"timeout": 60_000, "escalation_handler": "noop"}))
    ended(after(flow), container, g="completed")
    assert [row.output["_escalated"] for row in holder(flow).rows("g")] == [True]
    assert flow.executed().count("g") == 1, "the escalation was called once, and the step's own handler never"


@cases
def test_s5_5_open_gate_takes_any_payload(world: World, container: Container) -> None:
    flow = begin(world, container, step("g", wait_for_signal=True))
    assert holder(flow).standing() == {"g": "gate"}
    holder(flow).signal({"custom": "g"}, {"decision": "fine"})
    advance(flow)
    ended(flow, container, g="completed")
    assert holder(flow).output("g") == {"decision": "fine"}
    assert flow.executed().count("g") == 1


@cases
@pytest.mark.parametrize(
    "waiting",
    [
        step("g", "external"),
        step("g", wait_for_input={}),
        step("g", "sleep", {"duration_ms": 60_000}),
    ],
    ids=["queued", "asked", "asleep"],
)
def test_s5_8_deadline_ends_the_step_however_it_waits(world: World, container: Container, waiting: Block) -> None:
    flow = begin(world, container, {**waiting, "deadline": 10_000})
    ended(after(flow), container, g="failed")
    assert [row.output["_error"] for row in holder(flow).rows("g")] == ["sla_deadline_breached"]


@cases
def test_s5_6_retry_backs_off(world: World, container: Container) -> None:
    policy = {"max_attempts": 2, "initial_backoff": 5000, "max_backoff": 5000}
    flow = begin(world, container, fail("g", retryable=True, retry=policy))
    assert holder(flow).standing() == {"g": "backoff"}
    assert holder(flow).state == "scheduled"
    ended(after(flow), container, g="failed")
    assert flow.executed().count("g") == 2


@cases
@pytest.mark.parametrize(
    "waiting",
    [step("g", "external"), step("g", delay={"duration": 60_000}), step("g", wait_for_input={})],
    ids=["queued", "delayed", "asked"],
)
def test_s9_5_cancel_ends_what_waits_unless_it_is_shielded(world: World, container: Container, waiting: Block) -> None:
    flow = begin(world, container, waiting)
    flow.cancel()
    advance(flow)
    is_shielded = container in (CONTAINERS["finally"], CONTAINERS["scope"], CONTAINERS["six deep"])
    if not is_shielded:
        assert (flow.state, holder(flow).tree()["g"]) == ("cancelled", "cancelled")
        return
    assert not flow.instance.state.is_terminal
    if "delay" in waiting:
        after(flow)
    elif "wait_for_input" in waiting:
        holder(flow).answer("g")
    else:
        flow.complete("g")
    advance(flow)
    assert (flow.state, flow.tree()["g"]) == ("cancelled", "completed")
    assert "z" not in flow.executed()
