"""Steps without effects are run, and stored, in the commit of the step before them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator import ahead
from orchestrator.core.outcomes import Outcome
from orchestrator.core.states import InstanceState
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import Finished, NewInstance, Report
from orchestrator.settings import Settings
from orchestrator.store import instances, reading, sessions
from orchestrator.store.instances import Profile
from orchestrator.store.session import Store
from sequences.signals import Control
from tests.support.hands import hands_of
from tests.support.stack import NAMESPACE, TENANT, define
from workers import StepContext
from workers.handlers.builtin import builtin_registry
from workers.registry import HandlerSources, Registry

pytestmark = pytest.mark.shares_database

Block = dict[str, Any]


def step(name: str, handler: str = "noop", **fields: Any) -> Block:
    return {"type": "step", "id": name, "handler": handler, **fields}


class Hands:
    """An executor with the built-in handlers and one of a user's, which notes each commit."""

    def __init__(self, engine: Engine, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        self.store = store
        self.commits: list[list[str]] = []
        """What each commit has stored: the steps that were claimed, and behind `|` those that were run ahead."""
        self.plain_runs = 0
        own = Registry()
        own.register("plain", self._plain)
        self.executor = hands_of(engine, settings, HandlerSources(builtin_registry(), own))
        self._finish = engine.finish
        engine.now()  # a process that has not been told the time decides nothing in memory
        monkeypatch.setattr(ahead, "LONGEST_SECONDS", 60.0)  # whatever else the machine is doing
        monkeypatch.setattr(engine, "finish", self._noting)

    def _plain(self, ctx: StepContext) -> dict[str, str]:
        self.plain_runs += 1
        return {"block": ctx.block_id}

    def _noting(self, reports: Sequence[Report], carry_on: Any = None) -> Finished:
        finished = self._finish(reports, carry_on)
        followed = [report.claim.key.block_id for report in finished.ahead]
        self.commits.append([*(report.claim.key.block_id for report in reports), "|", *followed])
        return finished

    def start(self, blocks: Sequence[Block], data: Mapping[str, Any] | None = None, **fields: Any) -> UUID:
        """Start an instance."""
        sequence_id = define(self.store, list(blocks), f"s{uuid4().hex}")
        profile = Profile(data=dict(data or {}))
        request = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE, profile=profile, **fields)
        return self.engine.start_many([request])[0].id

    def run(self, blocks: Sequence[Block], data: Mapping[str, Any] | None = None, **fields: Any) -> UUID:
        """Start an instance and run what is ready until nothing is."""
        instance_id = self.start(blocks, data, **fields)
        self.executor.answer("default", None)
        return instance_id

    def state(self, instance_id: UUID) -> str:
        """Give the state of an instance."""
        with self.store.transaction() as tx:
            return str(instances.states_of(tx, [instance_id])[instance_id])

    def attempts(self, instance_id: UUID) -> list[tuple[str, str]]:
        """Give block and outcome of each attempt, in order."""
        rows = self._rows("SELECT block_id, outcome FROM attempts WHERE instance_id = %s ORDER BY id", instance_id)
        return [(row[0], row[1]) for row in rows]

    def outputs(self, instance_id: UUID) -> dict[str, Any]:
        """Give the outputs, by block."""
        rows = self._rows("SELECT block_id, output FROM outputs WHERE instance_id = %s ORDER BY id", instance_id)
        return {row[0]: row[1] for row in rows}

    def open_steps(self, instance_id: UUID) -> dict[str, str]:
        """Give the states of open steps, by block."""
        return dict(self._rows("SELECT block_id, state FROM steps WHERE instance_id = %s", instance_id))  # type: ignore[arg-type]

    def _rows(self, query: str, instance_id: UUID) -> list[tuple[Any, ...]]:
        with self.store.transaction() as tx:
            return tx.query(query, (instance_id,))


@pytest.fixture
def hands(engine: Engine, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(engine, store, settings, monkeypatch)


def test_steps_without_effects_are_stored_with_the_one_before(hands: Hands) -> None:
    blocks = [
        step("a"),
        step("b", "transform", params={"value": "{{ data.x }}"}),
        step("c", "transform", params={"seen": "{{ outputs.b.value }}"}),
        step("d"),
    ]
    instance_id = hands.run(blocks, {"x": 7})
    assert hands.commits == [["a", "|", "b", "c", "d"]]
    assert hands.state(instance_id) == "completed"
    assert hands.attempts(instance_id) == [(name, "completed") for name in "abcd"]
    assert hands.outputs(instance_id) == {"a": {}, "b": {"value": 7}, "c": {"seen": 7}, "d": {}}
    assert hands.open_steps(instance_id) == {}


def test_a_step_with_effects_is_run_only_when_its_claim_is_stored(hands: Hands) -> None:
    instance_id = hands.run([step("a"), step("b"), step("c", "plain"), step("d"), step("e", "log")])
    assert hands.commits == [["a", "|", "b"], ["c", "|", "d"], ["e", "|"]]
    assert hands.plain_runs == 1
    assert hands.state(instance_id) == "completed"


@pytest.mark.parametrize(
    "waits",
    [
        {"timeout": 60_000},
        {"deadline": 60_000},
        {"cache_key": "k"},
        {"delay": {"duration": 60_000}},
        {"params": {"x": "credentials://c"}},
    ],
    ids=["time-out", "deadline", "cache", "delay", "credentials"],
)
def test_a_step_that_waits_or_counts_is_claimed(hands: Hands, waits: Block) -> None:
    hands.run([step("a"), step("b", **waits), step("c")])
    assert hands.commits[0] == ["a", "|"]


def test_parallel_steps_are_run_ahead_together_with_their_join(hands: Hands) -> None:
    branches = [[step("b1"), step("b2")], [step("c1")]]
    instance_id = hands.run([step("a"), {"type": "parallel", "id": "p", "branches": branches}, step("d")])
    assert hands.commits == [["a", "|", "b1", "c1", "b2", "d"]]
    assert hands.state(instance_id) == "completed"


def test_a_step_whose_end_needs_more_than_is_loaded_is_claimed(hands: Hands) -> None:
    """Its failure cancels what is open beside it, and only the store knows all of that."""
    branches = [[step("f", "fail")], [step("b"), step("c")], [step("h", "human_review")]]
    block = {"type": "parallel", "id": "p", "branches": branches, "failure_policy": "fail_fast"}
    instance_id = hands.run([step("a"), block])
    assert hands.commits[0] == ["a", "|", "b", "c"]
    assert hands.state(instance_id) == "failed"
    assert hands.open_steps(instance_id) == {}


def test_a_failed_step_is_tried_again_by_itself(hands: Hands) -> None:
    retry = {"max_attempts": 2, "initial_backoff": 60_000, "max_backoff": 60_000}
    params = {"message": "no", "retryable": True}
    instance_id = hands.run([step("a"), step("f", "fail", params=params, retry=retry)])
    assert hands.commits == [["a", "|", "f"]]
    assert hands.attempts(instance_id) == [("a", "completed"), ("f", "failed")]
    assert hands.open_steps(instance_id) == {"f": "backoff"}


def test_no_more_steps_are_run_in_a_row_than_is_set(
    engine: Engine, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands(engine, store, settings.model_copy(update={"carry_on_steps": 3}), monkeypatch)
    hands.run([step(name) for name in "abcdef"])
    assert hands.commits[0] == ["a", "|", "b", "c"]


def test_a_step_that_has_lost_its_worker_is_committed_alone(hands: Hands) -> None:
    """What is run behind it may be what kills workers, and must not be blamed on it."""
    instance_id = hands.start([step("a"), step("b"), step("c")])
    with hands.store.transaction() as tx:
        tx.execute("UPDATE steps SET losses = 1 WHERE instance_id = %s", (instance_id,))
    hands.executor.answer("default", None)
    assert hands.commits == [["a", "|"], ["b", "|", "c"]]


def during(hands: Hands, act: Callable[[UUID], object], monkeypatch: pytest.MonkeyPatch) -> UUID:
    """Run an instance, and do something to it while the second step is run ahead."""
    run = hands.executor._outcome
    acted: list[UUID] = []

    def acting(work: Any, handler: Any, may_begin: Any) -> Outcome | None:
        if work.claim.key.block_id == "b" and not acted:
            acted.append(work.claim.instance_id)
            act(work.claim.instance_id)
        return run(work, handler, may_begin)

    monkeypatch.setattr(hands.executor, "_outcome", acting)
    return hands.run([step("a"), step("b"), step("c")])


def test_what_was_run_ahead_is_dropped_if_the_instance_has_changed(
    hands: Hands, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Engine(hands.engine.store, None, settings)
    instance_id = during(hands, lambda i: other.interventions.signal(i, Control.PAUSE, None), monkeypatch)
    assert hands.commits == [["a", "|"]]
    assert hands.state(instance_id) == InstanceState.PAUSED
    assert hands.attempts(instance_id) == [("a", "completed")]
    assert hands.open_steps(instance_id) == {"b": "held"}


def test_what_was_run_ahead_is_dropped_if_the_claim_has_ended(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_away(instance_id: UUID) -> None:
        with hands.store.transaction() as tx:
            tx.execute("UPDATE steps SET token = gen_random_uuid() WHERE instance_id = %s", (instance_id,))

    instance_id = during(hands, take_away, monkeypatch)
    assert hands.commits == [["a", "|"]]
    assert hands.attempts(instance_id) == []
    assert hands.open_steps(instance_id) == {"a": "claimed"}


def test_a_step_reads_the_session_as_the_step_before_it_has_left_it(hands: Hands) -> None:
    """What is written ahead is not stored yet, and the session is read from the store."""
    with hands.store.transaction() as tx:
        session = sessions.insert(tx, uuid4(), TENANT, "s", {"x": "old"}, None)
    assert session is not None
    blocks = [
        step("a"),
        step("w", "transform", params={"target": "session.x", "value": "new {{ session.x }}"}),
        step("r", "transform", params={"seen": "{{ session.x }}"}),
    ]
    instance_id = hands.run(blocks, session_id=session.id)
    assert hands.outputs(instance_id)["r"] == {"seen": "new old"}


def test_steps_whose_time_is_over_are_claimed_as_usual(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LONGEST_SECONDS", 0.0)
    instance_id = hands.run([step("a"), step("b")])
    assert hands.commits == [["a", "|"], ["b", "|"]]
    assert hands.state(instance_id) == "completed"


def test_items_that_are_not_stored_yet_are_waited_for(
    engine: Engine, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice holds the first hundred items of a for_each that has just begun, and the store none."""
    hands = Hands(engine, store, settings.model_copy(update={"carry_on_steps": 1000}), monkeypatch)
    body = [step("b", "transform", params={"seen": "{{ data.item }}"})]
    first = step("a", "transform", params={"all": "{{ data.numbers }}"})
    blocks = [first, {"type": "for_each", "id": "f", "collection": "numbers", "concurrency": 150, "body": body}]
    instance_id = hands.run(blocks, {"numbers": list(range(150))})
    assert hands.state(instance_id) == "completed"
    seen = hands._rows("SELECT output -> 'seen' FROM outputs WHERE block_id = 'b' AND instance_id = %s", instance_id)
    assert sorted(row[0] for row in seen) == list(range(150))


def test_an_error_ahead_harms_nobody(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_instance_id: UUID) -> None:
        raise RuntimeError("ahead")

    instance_id = during(hands, fail, monkeypatch)
    assert hands.commits == [["a", "|"], ["b", "|", "c"]]
    assert hands.state(instance_id) == "completed"
    assert hands.attempts(instance_id) == [(name, "completed") for name in "abc"]


def test_steps_ahead_are_told_to_those_who_watch(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    events = hands.executor._events
    monkeypatch.setattr(events, "started", lambda claim: told.append(f"{claim.key.block_id} begins"))
    monkeypatch.setattr(events, "ended", lambda claim, _: told.append(f"{claim.key.block_id} ends"))
    hands.run([step("a"), step("b")])
    assert told == ["a begins", "a ends", "b begins", "b ends"]


def test_what_could_not_be_read_for_a_step_ahead_is_not_taken_for_absent(
    hands: Hands, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost while an output is read, and the commit finds another one."""
    read, losses = reading._newest, [StoreUnavailable("the connection was lost")]

    def losing(*positional: Any, **named: Any) -> Any:
        if losses and hands.plain_runs == 2:
            raise losses.pop()
        return read(*positional, **named)

    def in_doubt(reports: Sequence[Report], carry_on: Any = None) -> Finished:
        """Report as a process does that has not run the steps before."""
        if current := engine._turnstile.take(reports[0].claim.instance_id):
            current.outputs.clear()
            engine._turnstile.keep(current)
        return finish(reports, carry_on)

    finish = engine.finish
    monkeypatch.setattr(engine, "finish", in_doubt)
    monkeypatch.setattr(reading, "_newest", losing)
    transform = step("c", "transform", params={"seen": "{{ outputs.a.block }}"})
    instance_id = hands.run([step("a", "plain"), step("b", "plain"), transform])
    assert not losses
    assert hands.commits == [["a", "|"], ["b", "|"], ["c", "|"]]
    assert (hands.state(instance_id), hands.outputs(instance_id)["c"]) == ("completed", {"seen": "a"})
