"""What an executor does when it cannot even ask what it holds: nothing that it knows of may be forgotten."""

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.catalogue import stored_form
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.documents import NAMESPACE, TENANT, read_sequence
from tests.support.hands import hands_of
from workers import StepContext
from workers.registry import Registry


def _plain(ctx: StepContext) -> dict[str, Any]:
    return {"key": ctx.idempotency_key}


def test_what_a_commit_has_claimed_is_run_although_the_question_after_it_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    engine = Engine(store, None, Settings())
    registry = Registry()
    registry.register("plain", _plain)
    hands = hands_of(engine, Settings(), registry)
    blocks = [{"type": "step", "id": f"s{number}", "handler": "plain"} for number in range(4)]
    definition = read_sequence(blocks, datetime.now(UTC))
    store.tables.definitions[definition.id] = stored_form(definition)
    started = engine.start_many([NewInstance(sequence_id=definition.id, tenant_id=TENANT, namespace=NAMESPACE)])[0]

    finish, asked = engine.finish, engine.held_by
    reports: list[int] = []
    questions: list[int] = []

    def finish_at_the_second_try(*given: Any) -> Any:
        reports.append(1)
        if len(reports) == 1:
            raise StoreUnavailable("the store is away")
        return finish(*given)

    def held_by(worker: Any) -> Any:
        questions.append(1)
        if len(questions) <= 2:
            raise StoreUnavailable("the store is away")
        return asked(worker)

    monkeypatch.setattr(engine, "finish", finish_at_the_second_try)
    monkeypatch.setattr(engine, "held_by", held_by)
    ready = next(iter(store.tables.instances[started.id].steps.values())).step
    assert hands.answer("default", ready.id) == 4
    assert store.tables.instances[started.id].instance[None].state == "completed"
    hands.close(5)
