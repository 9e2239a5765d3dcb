"""What handlers log is stored with the outcome of their attempt, bounded and without secrets."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator import log_lines
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Work
from orchestrator.settings import Settings
from orchestrator.store import instances, step_logs
from orchestrator.store.session import Store
from tests.support.hands import hands_of
from tests.support.stack import NAMESPACE, TENANT, define
from workers import StepContext
from workers.executor import Executor
from workers.handlers.builtin import builtin_registry
from workers.registry import HandlerSources, Registry

pytestmark = pytest.mark.shares_database

Say = Callable[[StepContext], Any]


class Speaker:
    """A handler that does what a test says."""

    def __init__(self) -> None:
        self.say: Say = lambda _: None

    def __call__(self, ctx: StepContext) -> Any:
        return self.say(ctx)


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
def hands(engine: Engine, settings: Settings, speaker: Speaker) -> Iterator[Executor]:
    registry = Registry()
    registry.register("speak", speaker.__call__)

    async def speak_later(ctx: StepContext) -> Any:
        return speaker.say(ctx)

    registry.register("speak_later", speak_later)
    made = hands_of(engine, settings, HandlerSources(builtin_registry(), registry))
    yield made
    made.close(30)


def start(engine: Engine, store: Store, handler: str = "speak", **fields: Any) -> UUID:
    block = {"type": "step", "id": "a", "handler": handler, **fields}
    sequence_id = define(store, [block], f"s{uuid4().hex}")
    new = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)
    return engine.start_many([new])[0].id


def logged(store: Store, instance_id: UUID) -> list[tuple[Any, ...]]:
    with store.transaction() as tx:
        return [(row[0], row[2], row[3]) for row in step_logs.find(tx, instance_id)]


def state_of(store: Store, instance_id: UUID) -> str:
    with store.transaction() as tx:
        return instances.states_of(tx, [instance_id])[instance_id]


def test_lines_are_stored_in_order_with_the_outcome(
    engine: Engine, store: Store, hands: Executor, speaker: Speaker
) -> None:
    def say(ctx: StepContext) -> None:
        ctx.log("first")
        ctx.log({"n": 1}, level="warn", event=5)

    speaker.say = say
    instance_id = start(engine, store)
    hands.answer("default", None)
    assert state_of(store, instance_id) == "completed"
    assert logged(store, instance_id) == [("a", "info", "first"), ("a", "warn", '{"n":1} {"event":5}')]


def test_lines_of_coroutines_and_of_failed_attempts_are_stored(
    engine: Engine, store: Store, hands: Executor, speaker: Speaker
) -> None:
    def say(ctx: StepContext) -> None:
        ctx.log("about to break")
        raise RuntimeError("broken")

    speaker.say = say
    ids = [start(engine, store), start(engine, store, "speak_later")]
    hands.answer("default", None)
    hands.close(30)
    assert [state_of(store, each) for each in ids] == ["failed", "failed"]
    assert [logged(store, each) for each in ids] == [[("a", "info", "about to break")]] * 2


def test_lines_are_bounded_and_never_fail_a_step(
    engine: Engine, store: Store, hands: Executor, speaker: Speaker
) -> None:
    class Mute:
        def __repr__(self) -> str:
            raise ValueError("no words")

    def say(ctx: StepContext) -> None:
        for n in range(log_lines.MAX_LINES + 5):
            ctx.log(f"line {n}")
        for odd in (Mute(), "x" * 10_000, "nul \0", "half \ud800", "enc:v1:looks sealed", "%s {}"):
            ctx.log(odd)

    speaker.say = say
    instance_id = start(engine, store)
    hands.answer("default", None)
    assert state_of(store, instance_id) == "completed"
    messages = [row[2] for row in logged(store, instance_id)]
    assert len(messages) == log_lines.MAX_LINES
    assert messages[0] == "line 11"
    assert messages[-6:] == ["<Mute>", "x" * 8192, "nul ?", "half ?", " enc:v1:looks sealed", "%s {}"]


def test_what_the_engine_gave_as_a_secret_is_in_no_line(
    engine: Engine, store: Store, hands: Executor, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filled(self: Executor, work: Work) -> Work:
        return replace(work, secrets=("hunter2",))

    monkeypatch.setattr(Executor, "_filled", filled)
    speaker.say = lambda ctx: ctx.log("it is hunter2", token="hunter2")
    instance_id = start(engine, store)
    hands.answer("default", None)
    [(_, _, message)] = logged(store, instance_id)
    assert "hunter2" not in message
    assert message.startswith("it is ")


def test_lines_of_a_lost_claim_are_dropped(engine: Engine, store: Store, hands: Executor, speaker: Speaker) -> None:
    def say(ctx: StepContext) -> None:
        ctx.log("late")
        with store.transaction() as tx:
            tx.execute("UPDATE steps SET token = gen_random_uuid() WHERE instance_id = %s", (ctx.instance_id,))

    speaker.say = say
    instance_id = start(engine, store)
    hands.answer("default", None)
    assert logged(store, instance_id) == []


def test_the_built_in_log_stores_its_message_once_as_its_output(engine: Engine, store: Store, hands: Executor) -> None:
    instance_id = start(engine, store, "log", params={"message": "hello"})
    hands.answer("default", None)
    assert state_of(store, instance_id) == "completed"
    assert logged(store, instance_id) == []
