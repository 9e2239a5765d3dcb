"""What the client does when it is refused, and when the network or the server fails."""

import random
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator import errors
from orchestrator.api.app import create_app
from orchestrator.client import Client, InstanceState, Patience
from orchestrator.client.shapes import Instance
from orchestrator.client.waiting import Watch
from orchestrator.embedded.home import free_port
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.integration.client.hands import QUICK, work_off
from tests.support.serving import serving

pytestmark = pytest.mark.shares_database


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
