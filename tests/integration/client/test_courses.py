"""The clients change the course of flows, and work, against a real server over a real database."""

import asyncio
from uuid import UUID, uuid4

import pytest

from orchestrator import errors
from orchestrator.client import AsyncClient, Client, InstanceState
from tests.integration.client.hands import QUICK

pytestmark = pytest.mark.shares_database

STEP = {"handler": "paint", "queue_name": "pictures"}
POSTER = {"id": "poster", "blocks": [{**STEP, "id": "draft"}, {**STEP, "id": "final"}]}


@pytest.fixture
def poster(client: Client) -> UUID:
    """A sequence of two steps for workers that poll."""
    return client.create_sequence(POSTER).id


def paint(client: Client, output: object = None) -> str:
    (task,) = client.claim_tasks("w1", "paint", queue="pictures")
    client.complete_task(task, output)
    return task.block_id


def test_a_worker_claims_keeps_and_reports(client: Client, poster: UUID) -> None:
    started = client.start("poster").id
    assert client.claim_tasks("w1", "paint") == (), "its tasks are those of a queue"
    (task,) = client.claim_tasks("w1", "paint", queue="pictures", limit=5)
    assert (task.instance_id, task.block_id, task.claim_epoch) == (started, "draft", 1)
    client.heartbeat(task)
    further = client.checkpoint_task(task, {"row": 10})
    assert further.checkpoint_seq == 1
    with pytest.raises(errors.Conflict):
        client.checkpoint_task(task, {"row": 9})
    assert client.task_stats(queue="pictures").by_state == {"claimed": 1}
    client.fail_task(further, "out of ink")
    with pytest.raises(errors.Conflict):
        client.complete_task(further)
    assert client.get(started).state == "failed"
    assert [each.id for each in client.dead_letters()] == [started]
    assert "failed" in {each.event for each in client.task_events(task.id)}


def test_failures_of_one_cause_are_opened_again(client: Client, poster: UUID) -> None:
    started = client.start("poster").id
    (task,) = client.claim_tasks("w1", "paint", queue="pictures")
    client.fail_task(task, "out of ink")
    (group,) = client.failure_groups()
    assert (group.sample_message, group.count, group.sample_instance_ids) == ("out of ink", 1, (started,))
    assert client.retry_group(group.fingerprint).retried == 1
    with pytest.raises(errors.NotFound):
        client.retry_group("nothing", force=True)


def test_an_instance_is_changed_copied_and_compared(client: Client, poster: UUID) -> None:
    started = client.start("poster", {"n": 1}).id
    assert paint(client, {"ink": "red"}) == "draft"
    client.replace_context(started, {"n": 2})
    assert client.inject(started, [{"type": "step", "id": "frame", "handler": "noop"}]).total_injected == 1
    assert client.preview_fork(started, "final").copied_blocks == ("draft",)
    fork = client.fork(started, "final", data={"n": 3})
    assert (fork.forked_from, fork.rerun_blocks, fork.dry_run) == (started, ("final", "frame"), True)
    assert client.compare(started, fork.id).same_sequence
    assert [each.block_id for each in client.timeline(started, outputs=True).entries] == ["draft"]
    assert (client.children(started), client.effects(started)) == ((), ())
    client.set_state(started, "cancelled")
    with pytest.raises(errors.InvalidArgument):
        client.set_state(started, "running")
    resumed = client.resume_from(started, "draft", data={"n": 4})
    assert (resumed.resumed_from, resumed.outputs_deleted) == ("draft", 1)
    saved = client.save_checkpoint(started, {"row": 1})
    assert [each.id for each in client.list_checkpoints(started)] == [saved]
    assert client.latest_checkpoint(started).checkpoint_data == {"row": 1}
    assert client.prune_checkpoints(started, keep=0) == 1


def test_many_instances_are_changed_at_once(client: Client, poster: UUID) -> None:
    ids = {client.start("poster").id for _ in range(3)}
    assert {each.id for each in client.every(states=["scheduled", "waiting"])} == ids
    counted = client.batch_action("cancel", states=["waiting", "scheduled"], dry_run=True)
    assert (counted.matched, counted.dry_run) == (3, True)
    newer = client.create_sequence({**POSTER, "blocks": [{**STEP, "id": "draft"}]}).id
    assert client.migrate_many(newer, sequence_id=poster, dry_run=True).matched == 3
    (one, *_) = ids
    assert client.migrate(one, newer).to_sequence_id == newer
    assert client.reschedule(60) == 0
    assert client.set_states("cancelled", states=["waiting", "scheduled"]) == 3
    assert {each.state for each in client.every()} == {InstanceState.CANCELLED}
    changes = list(client.every_change())
    assert {each.instance_id for each in changes} == ids
    page = client.list_changes(limit=1)
    assert list(client.every_change(page.next_cursor)) == changes[1:]


def test_versions_are_looked_at_and_deleted(client: Client, poster: UUID) -> None:
    assert client.preflight(poster)["overall"] == "pass"
    assert client.preflight({"id": "x", "blocks": []})["overall"] == "fail"
    assert client.debug_template("{{ data.n }}", data={"n": 7})["result"] == 7
    assert client.inspect_template("{{ data.n }}")["templates"]
    assert client.dataflow(poster)
    assert client.dataflow({"id": "x", "blocks": [{"handler": "noop"}]})
    assert client.language_schema()
    client.set_sequence_status(poster, "unpublished")
    assert [each.id for each in client.every_sequence()] == [poster]
    client.delete_sequence(poster)
    assert list(client.every_sequence()) == []


def test_sessions(client: Client, poster: UUID) -> None:
    made = client.create_session("customer 7/a", {"name": "Ada"})
    assert (client.get_session(made.id), client.find_session("customer 7/a")) == (made, made)
    client.replace_session_data(made.id, {"name": "Grace"})
    client.set_session_state(made.id, "paused")
    seen = client.get_session(made.id)
    assert (seen.data, seen.state) == ({"name": "Grace"}, "paused")
    assert (client.session_instances(made.id), client.cancel_session(made.id)) == ((), 0)


def test_events_plugins_and_nodes(client: Client) -> None:
    told = client.publish_event("paid", "order-17", "bank-1", {"amount": 12})
    assert client.publish_event("paid", "order-17", "bank-1").duplicate
    event = {"event_name": "sent", "correlation_key": "order-17", "producer_event_id": "post-1"}
    assert [each.duplicate for each in client.publish_events([event, event])] == [False, True]
    assert [each.event_id for each in client.list_events(name="paid")] == [told.event_id]
    assert client.get_event(told.event_id).payload == {"amount": 12}
    made = client.register_plugin("maps", "grpc", "maps:443")
    assert (client.list_plugins(), client.get_plugin("maps")) == ((made,), made)
    assert not client.change_plugin("maps", {"enabled": False}).enabled
    client.remove_plugin("maps")
    assert (client.list_plugins(), client.nodes()) == ((), ())
    with pytest.raises(errors.NotFound):
        client.drain_node(uuid4())


def test_the_async_client_works_and_gives_page_by_page(url: str, poster: UUID) -> None:
    async def talk() -> None:
        async with AsyncClient(url, tenant="shop", patience=QUICK) as client:
            started = (await client.start("poster")).id
            (task,) = await client.claim_tasks("w1", "paint", queue="pictures")
            await client.complete_task(await client.checkpoint_task(task, 1), {"n": 1})
            assert [each.id async for each in client.every()] == [started]
            assert [each.id async for each in client.every_sequence()] == [poster]
            assert {each.instance_id async for each in client.every_change()} == {started}
            assert (await client.save_checkpoint(started, 1)) == (await client.latest_checkpoint(started)).id
            assert await client.publish_events([]) is None

    with pytest.raises(errors.RequestError):
        asyncio.run(talk())
