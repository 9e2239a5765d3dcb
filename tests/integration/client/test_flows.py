"""Both clients start flows, wait for them, read them and speak to them."""

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator import errors
from orchestrator.client import AsyncClient, Client, InstanceState, StartOptions
from orchestrator.client.calls import parts
from orchestrator.client.shapes import Instance
from orchestrator.core.outcomes import Failed
from orchestrator.engine import Engine
from orchestrator.exchange import Wish
from tests.integration.client.hands import QUICK, WORKER, work, work_off

pytestmark = pytest.mark.shares_database


def test_a_failure_is_diagnosed_and_remedied(client: Client, url: str, engine: Engine, greet: UUID) -> None:
    failed = client.start("greet").id
    work(engine, Failed(message="gone", retryable=False))
    found = client.diagnose(failed)
    assert (found.state, found.next) == (InstanceState.FAILED, None)
    assert "gone" in found.summary
    assert [cause.name for cause in found.causes] == ["state", "failed"]
    [offered] = client.list_remediations(failed)
    assert client.workbench(failed).remediations == (offered,)
    assert client.logs(failed) == ()

    async def apply() -> InstanceState:
        async with AsyncClient(url, tenant="shop", patience=QUICK) as same:
            return await same.apply_remediation(failed, offered.preview_id)

    assert asyncio.run(apply()) is offered.to_state
    with pytest.raises(errors.Conflict):
        client.apply_remediation(failed, offered.preview_id)


def test_a_flow_is_started_waited_for_and_read(client: Client, engine: Engine, greet: UUID) -> None:
    started = client.start("greet", {"order": 17})
    assert not started.is_duplicate
    work_off(engine)
    instance = client.wait(started.id, timeout=60)
    assert (instance.state, instance.data["order"]) == (InstanceState.COMPLETED, 17)
    assert instance.sequence_id == greet
    assert [row.block_id for row in client.outputs(started.id)] == ["noop", "charge"]
    assert client.output(started.id, "charge") == {"n": 1}
    assert {node.block_id: node.state for node in client.tree(started.id)} == {
        "noop": "completed",
        "charge": "completed",
    }
    assert client.audit(started.id)[0].to_state == "completed"
    assert [(each.block_id, each.outcome) for each in client.attempts(started.id)] == [
        ("noop", "completed"),
        ("charge", "completed"),
    ]


def test_the_async_client_does_the_same(url: str, engine: Engine, greet: UUID) -> None:
    async def talk() -> tuple[Instance, Any]:
        async with AsyncClient(url, tenant="shop", patience=QUICK) as client:
            started = await client.start("greet", {"order": 17})
            waiting = asyncio.create_task(client.wait(started.id, timeout=60))
            await asyncio.to_thread(work_off, engine)
            return await waiting, await client.output(started.id, "charge")

    instance, output = asyncio.run(talk())
    assert (instance.state, output) == (InstanceState.COMPLETED, {"n": 1})


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, str]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        written = {name: str(inspect.signature(each)) for name, each in functions if not name.startswith("_")}
        return {name: each.replace("AsyncIterator", "Iterator") for name, each in written.items()}

    ours, theirs = methods(Client), methods(AsyncClient)
    assert ours.keys() - {"close"} == theirs.keys() - {"close"}
    assert ours == theirs


def test_an_id_starts_exactly_that_version(client: Client, greet: UUID) -> None:
    newer = client.create_sequence({"id": "greet", "blocks": [{"handler": "noop"}]})
    assert newer.is_new
    by_id, by_name = client.start(greet), client.start("greet")
    assert client.get(by_id.id).sequence_id == greet
    assert client.get(by_name.id).sequence_id == newer.id
    assert client.get(client.start("greet", version=1).id).sequence_id == greet
    assert [each.version for each in client.versions("greet")] == [2, 1]


def test_options_reach_the_instance(client: Client, greet: UUID) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    options = StartOptions(
        priority="High", timezone="Europe/Berlin", metadata={"city": "Ulm"}, not_before=later, config={"a": 1}
    )
    instance = client.get(client.start("greet", options=options).id)
    assert (instance.priority, instance.timezone, instance.metadata) == ("High", "Europe/Berlin", {"city": "Ulm"})
    assert instance.next_fire_at is not None
    assert abs(instance.next_fire_at - later) < timedelta(seconds=1)
    assert instance.context.config == {"a": 1}
    assert [each.id for each in client.list(metadata={"city": "Ulm"}).items] == [instance.id]
    with pytest.raises(errors.InvalidArgument, match="not_before needs a time zone"):
        client.start("greet", options=StartOptions(not_before=later.replace(tzinfo=None)))


def test_the_same_key_starts_once(client: Client, greet: UUID) -> None:
    first = client.start("greet", idempotency_key="order-17")
    second = client.start("greet", idempotency_key="order-17")
    assert (second.id, first.is_duplicate, second.is_duplicate) == (first.id, False, True)


def test_many_are_started_in_order(client: Client, greet: UUID) -> None:
    started = client.start_many("greet", ({"n": n} for n in range(3)), idempotency_keys=["a", "b", "c"])
    assert [client.get(each.id).data for each in started] == [{"n": 0}, {"n": 1}, {"n": 2}]
    again = client.start_many(greet, [{}, {}], idempotency_keys=["c", "d"])
    assert (again[0].id, again[0].is_duplicate, again[1].is_duplicate) == (started[2].id, True, False)
    assert client.start_many("greet", []) == ()
    with pytest.raises(errors.InvalidArgument, match="2 instances need as many idempotency keys, not 1"):
        client.start_many("greet", [{}, {}], idempotency_keys=["a"])


def test_many_are_sent_in_parts() -> None:
    assert [len(part) for part in parts(list(range(2001)))] == [1000, 1000, 1]


def test_lists_come_in_pages(client: Client, greet: UUID) -> None:
    ids = {each.id for each in client.start_many("greet", [{}] * 3)}
    page = client.list(states=["running"], sequence_id=greet, limit=2)
    rest = client.list(states=["running"], sequence_id=greet, limit=2, offset=2)
    assert (page.has_more, rest.has_more) == (True, False)
    assert {each.id for each in page.items + rest.items} == ids
    assert [each.name for each in client.list_sequences().items] == ["greet"]


def test_pause_resume_cancel_and_retry(client: Client, engine: Engine, greet: UUID) -> None:
    paused = client.start("greet").id
    client.pause(paused)
    assert client.get(paused).state == InstanceState.PAUSED
    client.resume(paused)
    client.cancel(paused)
    assert client.wait(paused, timeout=60).state == InstanceState.CANCELLED
    failed = client.start("greet").id
    work(engine, Failed(message="card refused", retryable=False))
    assert client.wait(failed, timeout=60).state == InstanceState.FAILED
    assert client.retry(failed) == InstanceState.SCHEDULED
    work_off(engine)
    assert client.wait(failed, timeout=60).state == InstanceState.COMPLETED
    with pytest.raises(errors.InvalidArgument, match="can only retry failed instances, current state: completed"):
        client.retry(failed)
    with pytest.raises(errors.InvalidArgument, match="terminal state"):
        client.signal(failed, "go")


def test_an_approval_is_listed_and_answered(client: Client, engine: Engine) -> None:
    gate = {"prompt": "Send it?", "choices": [{"label": "Yes", "value": "yes"}], "allow_comment": True}
    client.create_sequence({"id": "ask", "blocks": [{"id": "review", "handler": "noop", "wait_for_input": gate}]})
    started = client.start("ask").id
    (approval,) = client.approvals()
    assert (approval.instance_id, approval.block_id, approval.prompt) == (started, "review", "Send it?")
    assert [choice.value for choice in approval.choices] == ["yes"]
    client.answer(started, "review", "yes", comment="fine")
    work_off(engine)
    assert client.wait(started, timeout=60).data["review"] == "yes"
    assert client.approvals() == ()


def test_data_are_updated_by_a_signal(client: Client, greet: UUID) -> None:
    started = client.start("greet", {"a": 1}).id
    client.update_data(started, {"b": 2})
    assert client.get(started).data == {"a": 1, "b": 2}


def test_queues_show_their_backlog(client: Client, engine: Engine) -> None:
    client.create_sequence({"id": "render", "blocks": [{"handler": "charge", "queue_name": "gpu"}]})
    client.start_many("render", [{}, {}])
    engine.claim(WORKER, Wish(queue="gpu", handlers=["charge"]))
    (gpu,) = client.queues()
    assert (gpu.queue, gpu.states, gpu.workers) == ("gpu", {"claimed": 1, "ready": 1}, 0)
    assert gpu.oldest_ready_at is not None
    assert Client(client.url, tenant="others").queues() == ()
    assert client.workers() == ()
    assert client.tasks(queue="nowhere") == ()
