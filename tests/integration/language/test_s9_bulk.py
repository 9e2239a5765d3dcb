"""Section 9.2 for many flows at once: states set whatever they were, and due times shifted."""

from datetime import timedelta

import pytest

from tests.support.drive import World, ext, gate, loop, step

NAP = step("nap", "sleep", {"duration_ms": 60_000})


ENDINGS = ("completed", "failed", "cancelled")


@pytest.mark.parametrize("target", [*ENDINGS, "paused"])
@pytest.mark.parametrize("blocks", [[NAP], [ext("a")], [gate("a")], [step("a", delay={"duration": 60_000})]])
def test_s9_2_bulk_sets_the_state_wherever_a_flow_stands(world: World, blocks: list[object], target: str) -> None:
    flow = world.start([*blocks, step("z")]).run()
    world.force_many(flow.id, target)
    assert flow.check().state == target
    world.force_many(flow.id, target)
    assert flow.check().state == target


@pytest.mark.parametrize("target", ENDINGS)
def test_s9_2_bulk_moves_an_ended_flow_to_another_ending(world: World, target: str) -> None:
    flow = world.start([step("a")]).run()
    world.force_many(flow.id, target)
    assert (flow.check().state, flow.executed()) == (target, ["a"])


@pytest.mark.parametrize("way", ["resume", "scheduled"])
def test_s9_2_ended_flow_that_bulk_has_paused_is_not_stranded(world: World, way: str) -> None:
    flow = world.start([step("a"), ext("b")]).run()
    flow.fail("b")
    world.force_many(flow.id, "paused")
    assert flow.state == "paused"
    world.restart()
    _ = flow.resume() if way == "resume" else flow.force("scheduled")
    assert flow.check().standing() == {"b": "ready"}
    flow.complete("b")
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "b"])


def test_s9_2_completed_flow_that_bulk_has_paused_completes_again(world: World) -> None:
    flow = world.start([step("a")]).run()
    world.force_many(flow.id, "paused")
    assert flow.resume().check().state == "completed"
    assert flow.executed() == ["a"]
    world.force_many(flow.id, "paused")
    assert flow.cancel().check().state == "cancelled"


WAITS = {
    "delay": ([step("a", delay={"duration": 60_000})], 60),
    "backoff": (
        [
            step(
                "a",
                "fail",
                {"retryable": True},
                retry={"max_attempts": 2, "initial_backoff": 9000, "max_backoff": 9000},
            )
        ],
        9,
    ),
    "polling": ([loop("l", [step("a")], poll_interval=60)], 60),
}


@pytest.mark.parametrize("where", WAITS)
def test_api_10_7_due_times_are_shifted(world: World, where: str) -> None:
    blocks, seconds = WAITS[where]
    flow = world.start(blocks).run()
    before = flow.due_in()
    assert world.reschedule(flow.id, by=timedelta(seconds=100)) == 1
    assert flow.check().due_in() == pytest.approx(before + 100, abs=30)
    world.restart()
    world.reschedule(flow.id, by=-timedelta(seconds=100 + seconds))
    assert flow.check().due_in() < 1
    assert flow.pass_time()
    assert "a" in flow.run().check().executed()


def test_api_10_7_start_in_the_future_is_shifted(world: World) -> None:
    hour = timedelta(hours=1)
    flow = world.start([step("a")], not_before=world.now() + hour)
    world.reschedule(flow.id, by=-hour)
    assert flow.check().due_in() < 1
    assert flow.settle().check().state == "completed"


@pytest.mark.parametrize("blocks", [[NAP], [ext("a")], [step("a")]])
def test_api_10_7_only_scheduled_flows_are_shifted(world: World, blocks: list[object]) -> None:
    flow = world.start(blocks).run()
    before = world.timers(flow.id)
    assert world.reschedule(flow.id, by=timedelta(seconds=100)) == 0
    assert world.timers(flow.id) == before
