"""Whatever happens to a flow, in whatever order: at most one outcome per step, true counts, legal moves, nothing stuck.

The machine drives the pure core. Claims are never consumed, so late and repeated reports happen all the time; workers
die, people pause, resume, cancel, retry, answer and set states by hand, and time passes.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from orchestrator.core import cancellation
from orchestrator.core.changes import InstancePut
from orchestrator.core.model import Claim, NodeKey
from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended
from orchestrator.core.states import INSTANCE_MOVES, NODE_MOVES, STEP_MOVES, InstanceState, NodeState, StepState, route
from orchestrator.core.turn import Turn
from orchestrator.errors import InvalidArgument
from tests.support.drive import (
    START,
    Flow,
    PureWorld,
    ext,
    fail,
    for_each,
    gate,
    loop,
    parallel,
    race,
    router,
    saga,
    scope,
    split,
    step,
    timedelta,
    try_catch,
)

RETRY = {"max_attempts": 2, "initial_backoff": 50, "max_backoff": 50}


SHAPES = {
    "flat": [step("a"), ext("b", retry=RETRY, timeout=1000), gate("g"), step("z")],
    "parallel": [
        parallel("p", [step("a"), ext("b", retry=RETRY)], [ext("c", cancellable=False), gate("g")], [step("d")]),
        ext("z"),
    ],
    "fail_fast": [
        parallel(
            "p",
            [ext("a"), step("b", delay={"duration": 100})],
            [loop("l", [step("c"), ext("d")], max_iterations=3, poll_interval=1)],
            [try_catch("t", [ext("e")], [step("f")], [ext("h"), step("i")])],
            failure_policy="fail_fast",
        ),
        ext("z"),
    ],
    "for_each": [
        for_each(
            "e", "items", [ext("a", retry=RETRY), router("r", ("item > 1", [gate("g")])), step("b")], concurrency=2
        ),
        try_catch("t", [ext("c"), fail("f")], [ext("d")], [step("h", cancellable=False)]),
    ],
    "loop": [
        loop("l", [for_each("e", "items", [step("a"), ext("b")]), gate("g", delay={"duration": 50})], max_iterations=2),
        ext("c", wait_for_signal={"timeout": 500}),
    ],
    "race": [
        race(
            "r",
            [ext("a", retry=RETRY), step("b", "sleep", {"duration_ms": 100})],
            [try_catch("t", [ext("c")], [ext("d")], [ext("h"), step("i")]), ext("j")],
            [loop("l", [step("e"), ext("f", cancellable=False)], max_iterations=3, poll_interval=1)],
            [scope("s", gate("g"), ext("k"))],
        ),
        ext("z"),
    ],
    "race_to_succeed": [
        for_each(
            "e",
            "items",
            [race("r", [ext("a")], [race("q", [step("b")], [ext("c")])], [gate("g")], semantics="first_to_succeed")],
            concurrency=2,
        ),
        ext("z"),
    ],
    "saga": [
        saga(
            "s",
            (ext("a", retry=RETRY), ext("undo_a", retry=RETRY)),
            (parallel("p", [ext("b")], [step("d", delay={"duration": 100})]), try_catch("t", [ext("undo_b")], [])),
            (saga("in", (step("e"), gate("g")), (ext("f"), None)), step("undo_in")),
            (ext("c", cancellable=False), step("undo_c")),
        ),
        ext("z"),
    ],
    "scope": [
        split("x", ("A", 1, [ext("a")]), ("B", 1, [scope("s", loop("l", [ext("b"), gate("g")], max_iterations=2))])),
        try_catch(
            "t",
            [saga("u", (scope("v", ext("c")), ext("undo_c")), (ext("d"), None))],
            [scope("w", ext("e"), step("f", "sleep", {"duration_ms": 100}))],
        ),
        ext("z"),
    ],
    "deadlines": [
        parallel("p", [ext("a", retry=RETRY, deadline=120)], [step("s", "sleep", {"duration_ms": 300}, deadline=200)]),
        try_catch("t", [gate("g", deadline=50)], [ext("b", deadline=400, on_deadline_breach={"handler": "noop"})]),
    ],
    "later": [step("a", send_window={"start_hour": 13, "end_hour": 14}), step("b", "sleep", {"duration_ms": 100})],
}

UNDONE = {"undo_a": "a", "undo_b": "b", "undo_c": "c", "undo_in": "in"}
"""What each compensation undoes."""

WATCHED = {
    "interceptors": {
        "before_step": {"handler": "noop", "params": {"step": "{{ step }}"}},
        "after_step": {"handler": "transform", "params": {"output": "{{ step.output }}"}},
        "on_signal": {"handler": "elsewhere", "params": {"type": "{{ signal.type }}"}},
        "on_complete": {"handler": "noop"},
        "on_failure": {"handler": "noop", "params": {"error": "{{ error.message }}"}},
    },
    "sla": {"max_runtime": 100, "max_step_runtime": 50},
    "on_failure": [step("tidy"), ext("tell"), step("last")],
    "on_cancel": [step("undo")],
}

outcomes = st.sampled_from(
    [
        Completed(output={"v": 1}, merges=True),
        Completed(output={"v": 1}),
        Completed(output=None),
        Failed(message="no", retryable=True),
        Failed(message="no", retryable=False),
        Suspended(duration=timedelta(milliseconds=50), output={"slept_ms": 50}),
    ]
)


class Traced(PureWorld):
    """Notes every move that is made, and refuses those that no table allows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen_instance: set[tuple[str, str]] = set()
        self.seen_node: set[tuple[str, str]] = set()
        self.finished: dict[Any, int] = {}

    def decide(self, instance_id: Any, event: Any) -> Any:
        before = self._slices[instance_id].instance.state
        nodes = {key: node.state for key, node in self._slices[instance_id].nodes.items() if node is not None}
        shown = self._shown(instance_id)
        version = self._slices[instance_id].instance.version
        decision = super().decide(instance_id, event)
        assert self.instance(instance_id).version == version + bool(decision.changes)
        assert sum(isinstance(change, InstancePut) for change in decision.changes) == bool(decision.changes)
        for source, target in self.moves(instance_id):
            assert InstanceState(target) in INSTANCE_MOVES[InstanceState(source)]
            self.seen_instance.add((source, target))
        for target in route(before, self.instance(instance_id).state):
            self.seen_instance.add((before.value, target.value))
            before = target
        for key, state in self._shown(instance_id).items():
            former = shown.get(key, NodeState.PENDING)
            if former == state:
                continue
            for target in [NodeState.PENDING, state] if former.is_terminal else [state]:
                if former != target and former not in {NodeState.COMPLETED, NodeState.SKIPPED}:
                    self.seen_node.add((former.value, target.value))
                former = target
        for node in self.nodes(instance_id):
            former = nodes.get(node.key)
            if former is NodeState.COMPLETED or former is NodeState.SKIPPED:
                assert node.state is former, f"{node.key} was {former} and is {node.state}"
        return decision

    def _shown(self, instance_id: Any) -> dict[Any, NodeState]:
        """What a reader takes each node for: open steps stand for theirs."""
        shown = {node.key: node.state for node in self.nodes(instance_id)}
        for each in self.steps(instance_id):
            begun = each.state not in {StepState.DELAYED, StepState.WINDOW, StepState.HELD}
            now = NodeState.RUNNING if each.activity.value == "running" else NodeState.WAITING
            shown[each.key] = now if begun else shown.get(each.key, NodeState.PENDING)
        return shown


SEEN_STEP: set[tuple[StepState, StepState]] = set()
"""Moves of open steps, noted for all tests of this module."""


@pytest.fixture(autouse=True, scope="module")
def traced_steps() -> Iterator[None]:
    """Check and note each move of an open step, also those in the middle of a decision."""
    put_step = Turn.put_step

    def traced(self: Turn, written: Any) -> None:
        former = self._standing(written.key)
        if former is not None and former.state is not written.state:
            assert written.state in STEP_MOVES[former.state], f"{former.state} -> {written.state}"
            SEEN_STEP.add((former.state, written.state))
        put_step(self, written)

    Turn.put_step = traced  # type: ignore[method-assign]
    yield
    Turn.put_step = put_step  # type: ignore[method-assign]


class Lifecycle(RuleBasedStateMachine):
    """One flow, and everything that can happen to it."""

    claims = Bundle("claims")

    @initialize(shape=st.sampled_from(sorted(SHAPES)), later=st.booleans(), watched=st.booleans())
    def begin(self, shape: str, later: bool, watched: bool) -> None:
        self.world = Traced()
        start = START + timedelta(seconds=1) if later else None
        self.flow: Flow = self.world.start(
            SHAPES[shape], data={"items": [1, 2, 3]}, not_before=start, members=WATCHED if watched else {}
        )

    @rule(pick=st.integers(0, 5), outcome=outcomes, dies=st.booleans())
    def call_beside_the_flow_ends(self, pick: int, outcome: Outcome, dies: bool) -> None:
        calls = [each for each in self.flow.asides() if each.state is StepState.READY]
        if calls:
            before = self.flow.state
            claim = self.world.claim(self.flow.id, calls[pick % len(calls)])
            assert claim is not None
            if dies:
                self.flow.lose(claim)
            else:
                self.flow.finish(claim, outcome)
            if InstanceState(before).is_terminal:
                assert self.flow.state == before

    @rule()
    def alarm_rings(self) -> None:
        if self.world.alarms(self.flow.id):
            self.flow.ring()

    @rule(target=claims, pick=st.integers(0, 5))
    def claim(self, pick: int) -> Any:
        ready = [each for each in self.flow.steps() if each.state is StepState.READY]
        if not ready:
            return multiple()
        SEEN_STEP.add((StepState.READY, StepState.CLAIMED))
        return self.flow.claim(ready[pick % len(ready)].key.block_id)

    @rule(claim=claims, outcome=outcomes)
    def report(self, claim: Claim, outcome: Outcome) -> None:
        before = self._count_rows(claim.key)
        current = [s for s in self.flow.steps() if s.token == claim.token and s.state is StepState.CLAIMED]
        self.flow.finish(claim, outcome)
        if isinstance(outcome, Completed):
            assert self._count_rows(claim.key) - before <= len(current)
        if current and isinstance(outcome, Completed):
            self.world.finished[claim.key] = self.world.finished.get(claim.key, 0) + 1

    def _count_rows(self, key: NodeKey) -> int:
        return sum(row.iteration == key.iteration for row in self.flow.rows(key.block_id))

    @rule(claim=claims)
    def worker_dies(self, claim: Claim) -> None:
        self.flow.lose(claim)

    @rule()
    def time_passes(self) -> None:
        self.flow.pass_time()

    @rule(pick=st.integers(0, 20))
    def timer_fires_early_or_twice(self, pick: int) -> None:
        keys = sorted({node.key for node in self.world.nodes(self.flow.id)} | {s.key for s in self.flow.steps()})
        if keys:
            self.world.fire(self.flow.id, keys[pick % len(keys)])

    @rule(kind=st.sampled_from(["pause", "resume", "resume", "cancel", "update_context"]))
    def control(self, kind: str) -> None:
        self._ask(lambda: self.flow.signal(kind, {"data": {"k": 1}}))

    @rule(block_id=st.sampled_from("gcz"), value=st.sampled_from(["yes", "no", "maybe"]))
    def answer(self, block_id: str, value: str) -> None:
        self._ask(lambda: self.flow.answer(block_id, value))

    @rule()
    def answer_without_a_name(self) -> None:
        self._ask(lambda: self.flow.signal("custom", {"value": "yes"}))

    @rule()
    def retry(self) -> None:
        self._ask(self.flow.retry)

    @rule(state=st.sampled_from(InstanceState), later=st.booleans())
    def force(self, state: InstanceState, later: bool) -> None:
        when = self.world.clock + timedelta(seconds=5) if later else None
        self._ask(lambda: self.flow.force(state.value, when))

    def _ask(self, act: Any) -> None:
        before = self.flow.instance
        try:
            act()
        except InvalidArgument:
            assert self.flow.instance == before

    @invariant()
    def all_is_consistent(self) -> None:
        if hasattr(self, "flow"):
            self.flow.check()

    @invariant()
    def what_has_ended_is_whole(self) -> None:
        """A for_each that completed has finished every item, nothing is undone that was not done, all is at rest."""
        if not hasattr(self, "flow"):
            return
        nodes = {node.key: node for node in self.world.nodes(self.flow.id)}
        for key, node in nodes.items():
            if node.state is NodeState.COMPLETED and "total" in node.memory:
                assert node.memory["finished"] == node.memory["next"] == node.memory["total"]
            if node.state is NodeState.COMPLETED and key.block_id.startswith("undo_"):
                assert nodes[NodeKey(UNDONE[key.block_id], key.iteration)].state is NodeState.COMPLETED
        if self.flow.instance.state.is_terminal:
            assert set(self.flow.tree().values()) <= {"completed", "failed", "cancelled", "skipped"}

    @invariant()
    def no_step_has_two_outcomes(self) -> None:
        if hasattr(self, "world"):
            assert all(count == 1 for count in self.world.finished.values()) or self._may_repeat()

    def _may_repeat(self) -> bool:
        """A step behind which a gate stands is not over with its handler; a cancel there lets a retry run it again."""
        repeated = {key.block_id for key, count in self.world.finished.items() if count > 1}
        return repeated <= {"c"} and "wait_for_signal" in str(self.world._slices[self.flow.id].plan.definition)

    def teardown(self) -> None:
        """Whatever has happened, the flow can still be brought to its end by ordinary work."""
        if not hasattr(self, "flow"):
            return
        self._ask(self.flow.resume)
        for _ in range(400):
            instance = self.flow.instance
            if instance.state.is_terminal:
                return
            ready = [each for each in self.flow.steps() if each.state is StepState.READY]
            waiting = [each for each in self.flow.steps() if each.state is StepState.GATE]
            if instance.parked_reason:
                self.flow.resume()
            elif ready:
                self.flow.finish(self.flow.claim(ready[0].key.block_id), Completed(output={}))
            elif claimed := [each for each in self.flow.steps() if each.state is StepState.CLAIMED]:
                self.flow.finish(_claim(self.flow, claimed[0]), Completed(output={}))
            elif waiting:
                self.flow.answer(waiting[0].key.block_id)
            else:
                assert self.flow.pass_time(), f"stuck: {instance.state} {self.flow.standing()}"
            self.flow.check()
        raise AssertionError(f"no end: {self.flow.standing()}")


def _claim(flow: Flow, claimed: Any) -> Claim:
    return Claim(
        instance_id=flow.id,
        step_id=claimed.id,
        key=claimed.key,
        token=claimed.token,
        attempt=claimed.attempt,
        handler=claimed.handler,
        queue=claimed.queue,
        claimed_at=claimed.claimed_at,
        expires_at=claimed.expires_at,
    )


Lifecycle.TestCase.settings = settings(
    max_examples=int(os.environ.get("LIFECYCLE_EXAMPLES", "150")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestLifecycle = Lifecycle.TestCase


# -- every row of the tables -------------------------------------------------------------------------------------------


class Visits:
    """Short histories that together make every legal move."""

    def __init__(self) -> None:
        self.worlds: list[Traced] = []

    def start(self, *blocks: Any, **request: Any) -> Flow:
        self.worlds.append(Traced())
        return self.worlds[-1].start(list(blocks), data={"items": [1, 2]}, **request)

    @property
    def instance_moves(self) -> set[tuple[str, str]]:
        return {move for world in self.worlds for move in world.seen_instance}

    @property
    def node_moves(self) -> set[tuple[str, str]]:
        return {move for world in self.worlds for move in world.seen_node}


NAP = step("nap", "sleep", {"duration_ms": 1000})
SHUT = {"start_hour": 13, "end_hour": 14}


def visit_instance_moves(visits: Visits) -> None:
    for state in ("paused", "cancelled", "running"):
        visits.start(NAP, not_before=START + timedelta(hours=1)).force(state)
    for state in ("scheduled", "waiting", "completed", "failed", "paused", "cancelled"):
        flow = visits.start(NAP).run()
        visits.worlds[-1].seen_instance.add(("scheduled", "running"))
        if state == "waiting":
            visits.start(NAP, ext("x")).settle()
        elif state == "scheduled":
            visits.start(NAP, step("a", delay={"duration": 1000})).run().settle()
            flow.force("scheduled", START + timedelta(hours=1))
        else:
            flow.force(state)
    for outcome in ("running", "scheduled", "cancelled", "failed"):
        flow = visits.start(ext("x", retry=RETRY), NAP)
        assert flow.state == "waiting"
        if outcome == "running":
            flow.complete("x")
        elif outcome == "cancelled":
            flow.cancel()
        else:
            flow.fail("x", retryable=outcome == "scheduled")
    visits.start(NAP).pause().resume()
    visits.start(NAP).pause().cancel()
    for state in ("completed", "failed", "cancelled"):
        visits.start(NAP).force(state).force("scheduled")


def visit_step_moves(visits: Visits) -> None:
    delay = {"duration": 1000}
    for after in ("plain", "gate", "window"):
        fields = {"gate": {"wait_for_input": {}}, "window": {"send_window": SHUT}, "plain": {}}[after]
        for held in (False, True):
            flow = visits.start(step("a", delay=delay, **fields))
            if held:
                flow.pause()
            flow.pass_time()
            if after == "window":
                flow.pass_time()
            flow.resume()
    for held in (False, True):
        flow = visits.start(step("a", send_window=SHUT, wait_for_input={}))
        if held:
            flow.pause()
        flow.pass_time()
        if not held:
            flow.pause()
        flow.answer("a").resume()
    flow = visits.start(step("a", send_window=SHUT))
    visits.worlds[-1].fire(flow.id, flow.steps()[0].key)
    flow = visits.start(gate("a"))
    flow.answer("a").pause()
    flow = visits.start(ext("x", timeout=10, retry=RETRY))
    flow.pass_time()
    flow.pause().pass_time()
    flow = visits.start(ext("x", retry=RETRY))
    flow.lose(flow.claim("x"))
    flow.fail("x", retryable=True)
    flow.pass_time()
    flow.claim("x")
    flow.force("scheduled")
    flow = visits.start(step("nap", "sleep", {"duration_ms": 1000}, timeout=500, retry=RETRY), ext("x")).run()
    flow.pause().resume().run().pass_time()
    visits.start(step("nap", "sleep", {"duration_ms": 1}, wait_for_signal=True)).run().pass_time()
    visits.start(step("a", wait_for_signal=True)).run()
    visits.start(step("nap", "sleep", {"duration_ms": 1}), members=WATCHED).run().pass_time()
    visits.start(step("a", wait_for_signal=True), members=WATCHED).run()

    rest = {"max_attempts": 2, "initial_backoff": "3h", "max_backoff": "3h"}
    for hour in range(0, 24, 2):  # one of them is open now, and shut after the back-off
        late = visits.start(ext("x", retry=rest, send_window={"start_hour": hour, "end_hour": (hour + 2) % 24}))
        if late.standing() == {"x": "ready"}:
            late.fail("x", retryable=True)
            late.pass_time()
            break
    shuts = {"start_hour": START.hour, "end_hour": (START.hour + 1) % 24}
    kept = visits.start(step("a", send_window=shuts)).pause()
    kept.world.elapse(kept.id, timedelta(hours=2))
    kept.resume()
    asked = visits.start(gate("g", send_window=shuts))
    asked.world.elapse(asked.id, timedelta(hours=2))
    asked.answer("g")


def visit_node_moves(visits: Visits) -> None:
    visits.start(step("a", when="(("))
    visits.start(step("a", when="false"), step("b", delay={"duration": 1})).cancel()
    visits.start(gate("a")).answer("a").run()
    visits.start(step("a", wait_for_signal=True)).run().signal("custom", {"a": 1})
    visits.start(NAP).run().cancel()
    visits.start(ext("x")).cancel()
    flow = visits.start(parallel("p", [ext("x")], [ext("y")], failure_policy="fail_fast"))
    flow.fail("x")
    flow.retry()
    flow.complete("x")
    visits.start(fail("f")).run()


def test_every_legal_move_is_made() -> None:
    visits = Visits()
    visit_instance_moves(visits)
    visit_step_moves(visits)
    visit_node_moves(visits)
    SEEN_STEP.add((StepState.READY, StepState.CLAIMED))
    assert all_moves(INSTANCE_MOVES) - visits.instance_moves == set()
    assert all_moves(STEP_MOVES) - {(a.value, b.value) for a, b in SEEN_STEP} - {("window", "window")} == set()
    assert all_moves(NODE_MOVES) - visits.node_moves == set()


def test_no_other_move_of_a_node_is_made() -> None:
    visits = Visits()
    visit_instance_moves(visits)
    visit_step_moves(visits)
    visit_node_moves(visits)
    assert visits.node_moves - all_moves(NODE_MOVES) == set()


def all_moves(table: Any) -> set[tuple[str, str]]:
    return {(source.value, target.value) for source, targets in table.items() for target in targets}


# -- negative control --------------------------------------------------------------------------------------------------


def test_consistency_check_sees_a_step_that_nobody_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "release_held", lambda _turn: None)
    last = [step("s", "sleep", {"duration_ms": 1000})]
    flow = PureWorld().start([try_catch("t", [fail("f")], [], last)]).run().pause()
    with pytest.raises(AssertionError, match="nobody will let go"):
        flow.cancel().check()
