"""Everything inside everything: what runs, which rows it leaves, what a crash changes."""

import pytest

from tests.support.drive import (
    World,
    ext,
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

NESTED = [
    try_catch(
        "t",
        [
            for_each(
                "e",
                "items",
                [
                    parallel(
                        "p",
                        [
                            loop(
                                "l",
                                [say("a", "{{ item }}"), step("nap", "sleep", {"duration_ms": 10})],
                                "iteration < 2",
                            )
                        ],
                        [
                            router("r", ("item == 1", [say("one", 1)]), default=[say("more", 2)]),
                            fail(
                                "f",
                                retryable=True,
                                when="item == 3",
                                retry={"max_attempts": 2, "initial_backoff": 5, "max_backoff": 5},
                            ),
                        ],
                    )
                ],
                concurrency=2,
            )
        ],
        [say("caught", "{{ data._error.failed_blocks }}")],
        [say("last", "bye")],
    ),
    say("end", "{{ outputs.caught.message }}"),
]


EXPECTED = {"a": 6, "nap": 6, "l": 6, "one": 1, "more": 2, "e": 2, "caught": 1, "last": 1, "end": 1}


def counts(flow) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in flow.rows():
        found[row.block_id] = found.get(row.block_id, 0) + 1
    return found


@pytest.mark.parametrize("carry", [False, True])
def test_s3_nesting_leaves_exactly_the_rows_of_what_ran(world: World, *, carry: bool) -> None:
    flow = world.start(NESTED, data={"items": [1, 2, 3]}).settle(carry=carry)
    assert (flow.check().state, counts(flow)) == ("completed", EXPECTED)
    assert flow.output("end") == {"message": ["e"]}


def test_s5_9_a_crash_between_any_two_steps_changes_nothing(world: World) -> None:
    """Before every claim the engine is new, and another worker has claimed the next step and died with it."""
    flow = world.start(NESTED, data={"items": [1, 2, 3]})
    deaths = 0

    def crash() -> None:
        nonlocal deaths
        ready = flow.ready()
        if ready and ready[0].losses == 0:
            claim = world.claim(flow.id, ready[0])
            world.restart()
            assert flow.lose(claim)
            deaths += 1
        flow.check()

    flow.settle(between=crash)
    assert (flow.check().state, counts(flow)) == ("completed", EXPECTED)
    assert deaths > 15


CONTAINERS = {
    "root": lambda inside: inside,
    "parallel": lambda inside: [parallel("box", inside, [step("other")])],
    "loop": lambda inside: [loop("box", inside, "iteration < 1")],
    "for_each": lambda inside: [for_each("box", "items", inside)],
    "concurrent": lambda inside: [for_each("box", "items", inside, concurrency=2)],
    "router": lambda inside: [router("box", ("true", inside))],
    "try": lambda inside: [try_catch("box", inside, [step("other")])],
    "catch": lambda inside: [try_catch("box", [fail("bad")], inside)],
    "finally": lambda inside: [try_catch("box", [step("other")], [], inside)],
    "race": lambda inside: [race("box", [], inside)],
    "split": lambda inside: [split("box", ("A", 1, inside), ("B", 0, [step("other")]))],
    "scope": lambda inside: [scope("box", *inside)],
    "action": lambda inside: [saga("box", (step("other"), None), (scope("in_box", *inside), None))],
    "undo": lambda inside: [saga("box", (step("other"), scope("in_box", *inside)), (fail("bad"), None))],
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_s5_1_gates_stand_inside_every_container(world: World, container: str) -> None:
    """A delay, then a guard, then a human gate, then a worker, then a retried failure: all at this depth."""
    inside = [
        step("d", delay={"duration": 1000}),
        step("w", when="false"),
        gate("g"),
        ext("x"),
        fail("r", retryable=True, retry={"max_attempts": 2, "initial_backoff": 1000, "max_backoff": 1000}),
    ]
    flow = world.start(CONTAINERS[container](inside), data={"items": [1]}).run()
    assert (flow.check().state, flow.standing()) == ("scheduled", {"d": "delayed"})
    flow.pass_time()
    flow.run()
    assert (flow.check().state, flow.standing()) == ("waiting", {"g": "gate"})
    world.restart()
    flow.answer("g", "no").run()
    assert (flow.check().state, flow.standing()) == ("waiting", {"x": "ready"})
    flow.complete("x")
    flow.run()
    assert (flow.check().state, flow.standing()) == ("scheduled", {"r": "backoff"})
    flow.pass_time()
    flow.run()
    assert flow.check().state == ("completed" if container == "try" else "failed")
    assert (len(flow.rows("d")), len(flow.rows("w")), len(flow.rows("g")), len(flow.rows("x"))) == (1, 0, 2, 1)


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name not in {"try", "undo"}])
def test_s9_7_retry_keeps_completed_rows_at_any_depth(world: World, container: str) -> None:
    inside = [step("a"), parallel("in", [step("b"), ext("x")], [step("c")]), step("d")]
    flow = world.start(CONTAINERS[container](inside), data={"items": [1]}).run()
    for _ in range(3):
        flow.fail("x")
        assert flow.check().state == "failed"
        before = flow.rows()
        world.restart()
        flow.retry()
        assert flow.check().standing() == {"x": "ready"}
        assert flow.rows() == [row for row in before if row.ref != "__error__"]
    flow.complete("x")
    flow.run()
    assert flow.check().state == "completed"
    assert all(len(flow.rows(block_id)) == 1 for block_id in "abcdx")
    assert world.executed.count(("a", world.executed[0][1], 0)) <= 1
