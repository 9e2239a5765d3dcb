"""Both clients against a real server over a real database; what they do when the network or the server fails."""

import asyncio
import inspect
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator import errors
from orchestrator.api.app import create_app
from orchestrator.client import AsyncClient, Client, InstanceState, Patience, Renewal, StartOptions, StreamEvent
from orchestrator.client.calls import parts
from orchestrator.client.shapes import Instance
from orchestrator.client.waiting import Watch
from orchestrator.core.outcomes import Completed, Failed, Outcome
from orchestrator.embedded.home import free_port
from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish
from orchestrator.settings import Settings
from orchestrator.store.steps import Worker
from tests.support.serving import Reception, serving

QUICK = Patience(tries=4, first=0.001, longest=0.002)
WORKER = Worker(id=uuid4(), name="hands", slot=1)


def work(engine: Engine, outcome: Outcome | None = None, queue: str = "default") -> int:
    """Run the ready steps of a queue once; returns how many."""
    claims = engine.claim(WORKER, Wish(queue=queue, handlers=["noop", "charge", "human_review"]))
    reports = [Report(claim=claim, outcome=outcome or Completed(output={"n": 1})) for claim in claims]
    if reports:
        engine.finish(reports)
    return len(reports)


def work_off(engine: Engine) -> None:
    while work(engine):
        pass


@pytest.fixture
def url(reception: Reception, engine: Engine, settings: Settings) -> str:
    """A server over this test's database."""
    return reception.address(engine, settings)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, tenant="shop", patience=QUICK) as opened:
        yield opened


@pytest.fixture
def greet(client: Client) -> UUID:
    """A sequence `greet` of two steps."""
    return client.create_sequence({"id": "greet", "blocks": [{"handler": "noop"}, {"handler": "charge"}]}).id


# -- the ordinary way ------------------------------------------------------------------------------------------------


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


def test_credentials_are_stored_changed_and_removed(client: Client) -> None:
    renewal = Renewal(url="https://login.example.invalid/", token="r3", expires_at=datetime(2099, 1, 1, tzinfo=UTC))
    made = client.create_credential("mail", '{"token": "t"}', kind="oauth2", renewal=renewal, description="d")
    assert (made.name, made.kind, made.has_refresh_token, made.refresh_url) == ("mail", "oauth2", True, renewal.url)
    assert client.credentials() == (made,)
    assert "r3" not in repr(renewal)
    with pytest.raises(errors.AlreadyExists):
        client.create_credential("mail", "v")
    assert client.change_credential("mail", {"enabled": False}).enabled is False
    assert client.credential("mail").enabled is False
    client.delete_credential("mail")
    with pytest.raises(errors.NotFound):
        client.credential("mail")
    with pytest.raises(errors.InvalidArgument, match="time zone"):
        client.create_credential("x", "v", expires_at=datetime(2099, 1, 1))  # noqa: DTZ001


def follow(client: Client, engine: Engine, instance_id: UUID, after: str | None = None) -> list[StreamEvent]:
    """Follow an instance to its end; it is worked on once the stream is open."""
    seen = []
    for event in client.follow(instance_id, poll_ms=100, after=after):
        work_off(engine)
        seen.append(event)
    return seen


def test_an_instance_is_followed_to_its_end_and_again_from_any_event(
    client: Client, engine: Engine, greet: UUID
) -> None:
    started = client.start("greet")
    seen = follow(client, engine, started.id)
    rows = [each for each in seen if each.name == "output"]
    assert [each.data["block_id"] for each in rows] == ["noop", "charge"]
    assert seen[-1].data == {"state": "completed"}
    again = follow(client, engine, started.id, rows[0].cursor)
    assert [each.data for each in again if each.name == "output"] == [rows[1].data]
    with pytest.raises(errors.NotFound):
        list(client.follow(uuid4()))


def test_a_stream_that_breaks_off_goes_on_behind_the_last_event() -> None:
    """Every connection but the last one breaks; what is shown again is not told again."""
    state = b'event: state\ndata: {"state":"running"}\n\n'
    asked: list[str | None] = []

    class Cut(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield state + b'event: output\nid: c1\ndata: {"n":1}\n\nevent: output\nid: c2\nda'
            raise httpx.ReadError("cut")

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        match len(asked):
            case 1:
                return httpx.Response(200, stream=Cut())
            case 2:
                return httpx.Response(503, json={"error": "unavailable: all streams are in use"})
            case 3:
                return httpx.Response(200, content=state)
        return httpx.Response(200, content=state + b':\n\nevent: done\ndata: {"state":"completed"}\n\n')

    with Client("http://x", patience=QUICK, transport=httpx.MockTransport(answer)) as client:
        seen = [(each.name, each.cursor) for each in client.follow(uuid4())]
    assert seen == [("state", None), ("output", "c1"), ("done", None)]
    assert asked == [None, "c1", "c1", "c1"]


def test_the_async_client_follows_too(url: str, client: Client, engine: Engine, greet: UUID) -> None:
    started = client.start("greet")
    work_off(engine)

    async def names() -> list[str]:
        async with AsyncClient(url, tenant="shop", patience=QUICK) as opened:
            return [event.name async for event in opened.follow(started.id)]

    assert asyncio.run(names()) == ["state", "output", "output", "done"]


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, str]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        written = {name: str(inspect.signature(each)) for name, each in functions if not name.startswith("_")}
        return {name: each.replace("AsyncIterator", "Iterator") for name, each in written.items()}

    ours, theirs = methods(Client), methods(AsyncClient)
    assert ours.keys() - {"close"} == theirs.keys() - {"close"}
    assert ours == theirs


def test_pools_limits_and_breakers(client: Client) -> None:
    pool = client.create_pool("senders", strategy="weighted")
    assert (client.list_pools(), client.get_pool(pool.id)) == ((pool,), pool)
    added = client.add_resource(pool.id, "a@x", daily_cap=10, warmup_start=date(2026, 2, 28), warmup_days=14)
    assert (added.name, added.daily_cap, added.warmup_start) == ("a@x", 10, date(2026, 2, 28))
    changed = client.change_resource(pool.id, added.id, {"enabled": False})
    assert (changed.enabled, client.list_resources(pool.id)) == (False, (changed,))
    client.remove_resource(pool.id, added.id)
    client.delete_pool(pool.id)
    with pytest.raises(errors.NotFound):
        client.list_resources(pool.id)
    limit = client.set_rate_limit("mail/eu", 5, 60)
    assert (client.list_rate_limits(), client.get_rate_limit("mail/eu")) == ((limit,), limit)
    client.delete_rate_limit("mail/eu")
    with pytest.raises(errors.NotFound):
        client.delete_rate_limit("mail/eu")
    breaker = client.configure_breaker("https://x/y", failure_threshold=2, on_open="defer")
    assert (client.list_breakers(), client.get_breaker("https://x/y")) == ((breaker,), breaker)
    client.reset_breaker("https://x/y")
    assert (breaker.state, breaker.on_open, breaker.opened_at) == ("closed", "defer", None)


def test_triggers(client: Client, greet: UUID) -> None:
    made = client.create_trigger("orders", "greet", secret="gehört uns", config={"idempotency_key": "order"})
    assert (made.secret, client.list_triggers(), client.get_trigger("orders")) == ("[REDACTED]", (made,), made)
    first, again = (client.fire_trigger("orders", {"order": 7}, secret="gehört uns") for _ in range(2))
    assert (first.deduplicated, again.deduplicated, again.instance_id) == (False, True, first.instance_id)
    assert client.get(first.instance_id).data == {"order": 7}
    for secret in (None, "wrong"):
        with pytest.raises(errors.NotAuthorized, match="another secret"):
            client.fire_trigger("orders", secret=secret)
    changed = client.change_trigger("orders", {"enabled": False, "secret": None})
    assert (changed.enabled, changed.secret) == (False, None)
    with pytest.raises(errors.InvalidArgument, match="disabled"):
        client.fire_trigger("orders")
    client.delete_trigger("orders")
    with pytest.raises(errors.NotFound):
        client.get_trigger("orders")


def test_schedules(client: Client, greet: UUID) -> None:
    made = client.create_schedule(greet, "0 0 29 2 *", metadata={"a": 1}, overlap_policy="skip")
    (found,) = client.list_schedules()
    assert (found, found.next_fire_at) == (client.get_schedule(made.id), made.next_fire_at)
    assert (found.sequence_id, found.metadata, found.overlap_policy) == (greet, {"a": 1}, "skip")
    changed = client.change_schedule(made.id, {"timezone": "Europe/Berlin", "enabled": False})
    assert (changed.enabled, changed.timezone) == (False, "Europe/Berlin")
    fires = client.next_fires(made.id, 2)
    assert [(fire.month, fire.day, fire.hour) for fire in fires] == [(2, 28, 23)] * 2
    with pytest.raises(errors.InvalidArgument, match="cron_expr"):
        client.create_schedule(greet, "every day")
    client.delete_schedule(made.id)
    with pytest.raises(errors.NotFound):
        client.next_fires(made.id)


def test_versions_are_promoted_and_withdrawn(client: Client, greet: UUID) -> None:
    assert client.promote("greet").id == greet
    client.unpublish("greet")
    with pytest.raises(errors.InvalidArgument, match="unpublished"):
        client.promote("greet", version=1)
    client.unpublish("greet", delete=True)
    with pytest.raises(errors.NotFound):
        client.get_sequence(greet)


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


# -- refusals --------------------------------------------------------------------------------------------------------


def test_refusals_are_the_errors_of_the_engine(client: Client, greet: UUID) -> None:
    cases: list[tuple[type[errors.RequestError], str, Callable[[], Any]]] = [
        (errors.NotFound, "instance 0000", lambda: client.get(UUID(int=0))),
        (errors.NotFound, "sequence nothing", lambda: client.start("nothing")),
        (errors.NotFound, "output of block 'noop'", lambda: client.output(client.start("greet").id, "noop")),
        (errors.InvalidArgument, "no instance id", lambda: client.get("greet")),
        (errors.InvalidArgument, "sequence has no blocks", lambda: client.create_sequence({"id": "x", "blocks": []})),
        (errors.Unprocessable, "blocks", lambda: client.create_sequence({"id": "x"})),
        (errors.PayloadTooLarge, "the limit is", lambda: client.start("greet", {"text": "x" * 300_000})),
        (errors.InvalidArgument, "JSON", lambda: client.start("greet", {"x": object()})),
        (errors.InvalidArgument, "unknown state 'lost'", lambda: client.list(states=["lost"])),
    ]
    for kind, text, call in cases:
        with pytest.raises(kind, match=text):
            call()


def test_a_deprecated_version_is_a_conflict(client: Client, greet: UUID) -> None:
    client.deprecate(greet)
    client.deprecate(greet)
    with pytest.raises(errors.Conflict, match="is deprecated"):
        client.start(greet)
    with pytest.raises(errors.NotFound):
        client.start("greet")


def test_a_known_name_and_version_is_taken(client: Client) -> None:
    document = {
        "id": str(uuid4()),
        "tenant_id": "shop",
        "namespace": "default",
        "name": "taken",
        "version": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "blocks": [{"type": "step", "id": "a", "handler": "noop"}],
    }
    client.create_sequence(document)
    with pytest.raises(errors.AlreadyExists):
        client.create_sequence(document)
    with pytest.raises(errors.Forbidden, match="tenant_id in body"):
        client.create_sequence({**document, "id": str(uuid4()), "tenant_id": "others"})


def test_keys_and_tenants_are_asked_for(engine: Engine, settings: Settings) -> None:
    with serving(create_app(engine, settings.model_copy(update={"api_key": "secret"}))) as url:
        with pytest.raises(errors.NotAuthorized, match="does not know the key"):
            Client(url, "wrong", "shop").list()
        with pytest.raises(errors.InvalidArgument, match="the tenant; pass one"):
            Client(url, "secret").list()
        assert Client(url, "secret", "shop").list().items == ()


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(errors.ConfigurationError, match="must begin with http"):
        Client("localhost:8080")


def test_a_stranger_behind_the_address_is_told_apart() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>hello</html>")

    with pytest.raises(errors.ServerFault, match="was not answered as an orchestrator"):
        Client("http://test", transport=httpx.MockTransport(answer)).list()


def test_a_fault_names_the_request_to_look_for() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, json={"error": "internal server error"}, headers={"x-request-id": "r17"})

    with pytest.raises(errors.ServerFault, match=r"internal server error \(request r17"):
        Client("http://test", transport=httpx.MockTransport(answer)).list()


# -- failing networks ------------------------------------------------------------------------------------------------


class Flaky(httpx.BaseTransport):
    """A network that loses requests before they arrive, and answers after they were carried out; half of each."""

    def __init__(self, seed: int, kinds: tuple[str, ...] = ("before", "after", "busy")) -> None:
        self._inner = httpx.HTTPTransport()
        self._random = random.Random(seed)
        self._kinds = kinds
        self._lock = threading.Lock()
        self.failures = 0
        self.arrived = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            fails = self._random.random() < 0.5
            kind = self._random.choice(self._kinds)
            self.failures += fails
        if fails and kind == "before":
            raise httpx.ConnectError("refused", request=request)
        if fails and kind == "busy":
            return httpx.Response(503, json={"error": "unavailable: try again"}, request=request)
        response = self._inner.handle_request(request)
        response.read()
        self.arrived += 1
        if fails:
            raise httpx.ReadError("reset", request=request)
        return response


def test_half_of_the_network_failing_starts_nothing_twice(url: str, client: Client, greet: UUID) -> None:
    flaky = Flaky(seed=7)
    patient = Patience(tries=30, first=0.001, longest=0.002)
    with Client(url, tenant="shop", patience=patient, transport=flaky) as unlucky:
        ids = {unlucky.start("greet", {"n": n}).id for n in range(40)}
        ids |= {each.id for each in unlucky.start_many("greet", [{}] * 20)}
        assert not any(unlucky.start("greet").is_duplicate for _ in range(20))
    assert flaky.failures > 20
    found = client.list(limit=1000).items
    assert (len(ids), len(found)) == (60, 80)


def test_a_signal_is_not_sent_twice(url: str, client: Client, greet: UUID) -> None:
    started = client.start("greet").id
    flaky = Flaky(seed=1, kinds=("after",))
    with Client(url, tenant="shop", patience=QUICK, transport=flaky) as unlucky:
        sent = unsure = 0
        for _ in range(30):
            try:
                unlucky.signal(started, "go")
                sent += 1
            except errors.ServerUnavailable as error:
                unsure += error.may_be_done
    assert unsure > 5
    assert flaky.arrived == sent + unsure == 30


def test_a_signal_that_cannot_have_arrived_is_sent_again(url: str, client: Client, greet: UUID) -> None:
    started = client.start("greet").id
    patient = Patience(tries=30, first=0.001, longest=0.002)
    flaky = Flaky(seed=3, kinds=("before",))
    with Client(url, tenant="shop", patience=patient, transport=flaky) as unlucky:
        for _ in range(20):
            unlucky.signal(started, "go")
    assert (flaky.arrived, flaky.failures > 3) == (20, True)


def test_a_server_that_is_down_is_said_to_be() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(errors.ServerUnavailable, match=f"{url} did not answer GET /instances after 4 tries") as caught:
        Client(url, patience=QUICK).list()
    assert not caught.value.may_be_done


def test_a_server_that_comes_back_is_waited_for(engine: Engine, settings: Settings) -> None:
    port = free_port()
    app = create_app(engine, settings)
    with serving(app, port) as url:
        client = Client(url, tenant="shop", patience=QUICK)
        client.create_sequence({"id": "greet", "blocks": [{"handler": "noop"}]})
        started = client.start("greet").id
    seen: list[str] = []
    waited = threading.Thread(target=lambda: seen.append(client.wait(started, timeout=60).state))
    waited.start()
    waited.join(0.3)
    assert not seen
    work_off(engine)
    with serving(create_app(engine, settings), port):
        waited.join(60)
    assert seen == ["completed"]


def test_waiting_ends_at_its_deadline(client: Client, greet: UUID) -> None:
    started = client.start("greet").id
    seen: list[str] = []
    with pytest.raises(errors.WaitTimedOut, match="it is running"):
        client.wait(started, timeout=0.3, watch=lambda instance: seen.append(instance.state))
    assert set(seen) == {"running"}
    assert 1 <= len(seen) <= 10


def test_looks_grow_rarer_and_an_outage_is_endured_for_a_minute() -> None:
    now = 100.0
    watch = Watch("i", 1000.0, clock=lambda: now)
    running = Instance.model_validate(
        {
            "id": uuid4(),
            "sequence_id": uuid4(),
            "tenant_id": "t",
            "namespace": "d",
            "state": "running",
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        }
    )
    pauses = [watch.after(running) for _ in range(12)]
    assert pauses[:2] == [0.05, pytest.approx(0.075)]
    assert pauses[-1] == 2.0
    gone = errors.ServerUnavailable("gone")
    now += 59
    assert watch.after_outage(gone) == 2.0
    now += 2
    with pytest.raises(errors.ServerUnavailable):
        watch.after_outage(gone)
    now = 1100.5
    with pytest.raises(errors.WaitTimedOut, match=r"has not ended after 1000\.5 s"):
        watch.after(running)
    parked = running.model_copy(update={"state": InstanceState.PAUSED, "parked_reason": "poison"})
    assert watch.after(parked) is None


def test_push_queues_and_administration_of_workers(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match="push_url"):
        client.push_queue("mail", "http://127.0.0.1/")
    assert client.list_dispatch() == ()
    with pytest.raises(errors.NotFound):
        client.poll_queue("mail")
    assert "noop" in client.handlers().builtin
    told = client.tell_worker("w/1", "place", {"zone": "b"})
    assert (client.list_commands("w/1"), told.payload) == ((told,), {"zone": "b"})
    client.delete_command(told.id)
    assert client.list_commands("w/1") == ()
    pin = client.pin_version("a/b", "1.4.2")
    assert (client.list_pins(), pin.min_version) == ((pin,), "1.4.2")
    client.unpin_version("a/b")
    rule = client.route("paint", "gpu", match_queue="slow", priority=7)
    assert (client.list_routes("paint"), client.get_route(rule.id)) == ((rule,), rule)
    client.delete_route(rule.id)
    assert client.list_routes() == ()


def test_webhooks_that_were_not_sent(client: Client) -> None:
    assert (client.list_webhooks(), client.list_deliveries(delivered=False, error_class="dns")) == ((), ())
    for act in (client.preview_redelivery, client.redeliver, client.delete_webhook, client.get_delivery):
        with pytest.raises(errors.NotFound):
            act(uuid4())
