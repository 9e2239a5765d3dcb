"""Nobody gets this machine, its network or its cloud called: not by a step, a push queue, a webhook, a credential.

Each door is tried with every address of the table, with names that a name server answers otherwise each time, and with
redirects. Somebody listens where the forbidden requests would arrive.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

import orchestrator.egress.addresses
from orchestrator.core.outcomes import Failed, Outcome
from orchestrator.courier import Courier
from orchestrator.egress import BLOCKED, Egress
from orchestrator.engine import Engine
from orchestrator.outbox import Outbox
from orchestrator.pushing import Pushes
from orchestrator.renewal import Renewer
from orchestrator.settings import Settings
from orchestrator.step_errors import PermanentError
from orchestrator.store import credentials
from orchestrator.store.postgres import PostgresStore
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.name_server import NameServer, name_server
from tests.support.receiver import Answer, Receiver
from tests.support.serving import Reception
from workers.context import StepContext
from workers.handlers.builtin import builtin_registry

HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.1",
    "localhost",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "2852039166",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[2001:0:7f00:1::]",
    "[2002:7f00:1::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[ff02::1]",
]
PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"
"""The tests that need a public address call the first one that: no other can be reached from here."""


@pytest.fixture
def port(receiver: Receiver) -> int:
    found = httpx.URL(receiver.url).port
    assert found is not None
    return found


@pytest.fixture
def names() -> Iterator[NameServer]:
    with name_server() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, port: int) -> Settings:
    """Whoever stores an address may store any here: the doors themselves are what is tried."""
    urls = (*(f"http://{host}:{port}/hook" for host in HOSTS), f"http://rebinding.test:{port}/hook")
    return settings.model_copy(update={"allow_internal_urls": True, "webhook_urls": urls})


@pytest.fixture
def strict(reception: Reception, engine: Engine, settings: Settings) -> Iterator[Api]:
    """A server as it is installed: it stores no such address."""
    url = reception.address(engine, settings.model_copy(update={"allow_internal_urls": False, "webhook_urls": ()}))
    with httpx.Client(base_url=f"{url}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as http:
        yield Api(http, engine)


Door = Callable[[list[str], Egress], list[str]]
"""Sends something to each of the addresses; returns why it was not sent."""


@pytest.fixture(params=["http_request", "push", "webhook", "refresh"])
def door(request: pytest.FixtureRequest, api: Api, store: PostgresStore, settings: Settings) -> Door:
    doors: dict[str, Door] = {
        "http_request": _by_a_step,
        "push": lambda urls, egress: _by_a_push_queue(api, store, urls, egress),
        "webhook": lambda urls, egress: _by_a_webhook(api, store, settings, urls, egress),
        "refresh": lambda urls, egress: _by_a_credential(api, store, urls, egress),
    }
    return doors[request.param]


def _by_a_step(urls: list[str], egress: Egress) -> list[str]:
    handler = builtin_registry(egress=egress).find("http_request")
    assert handler is not None
    ctx = StepContext(instance_id=uuid4(), sequence="s", block_id="b", handler="http_request", idempotency_key="k")

    async def outcome(url: str) -> Outcome:
        call: Any = handler.bind(ctx, {"url": url, "method": "POST"})
        return handler.outcome_of(await call())

    async def together() -> list[Outcome]:
        return list(await asyncio.gather(*map(outcome, urls)))

    return [each.message if isinstance(each, Failed) else str(each) for each in asyncio.run(together())]


def _by_a_push_queue(api: Api, store: PostgresStore, urls: list[str], egress: Egress) -> list[str]:
    blocks = []
    for number, url in enumerate(urls):
        queue = {"tenant_id": TENANT, "queue_name": f"q{number}", "mode": "push", "push_url": url, "sync": True}
        assert api.http.post("/queues/dispatch", json=queue).status_code == 200
        blocks.append(api.start(step("a", queue_name=f"q{number}")))
    Pushes(store, api.engine, egress).push_due(100)
    attempts = [api.http.get(f"/instances/{instance}/attempts").json() for instance in blocks]
    return [str(each) for each in attempts]


def _by_a_webhook(api: Api, store: PostgresStore, settings: Settings, urls: list[str], egress: Egress) -> list[str]:
    api.start(step("a"))
    api.complete()
    outbox = Outbox(store, api.engine.new_id, settings, egress)
    for url in urls:
        Courier(outbox, url, 1).tick()
    found = {each["url"]: each.get("last_error", "") for each in api.http.get("/webhooks/outbox").json()}
    return [found.get(url, "sent") for url in urls]


def _by_a_credential(api: Api, store: PostgresStore, urls: list[str], egress: Egress) -> list[str]:
    renewer, told = Renewer(store, egress), list[str]()
    for number, url in enumerate(urls):
        body = {"id": f"c{number}", "name": "n", "kind": "oauth2", "value": "old", "tenant_id": TENANT}
        expired = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
        body |= {"refresh_url": url, "refresh_token": "r", "expires_at": expired}
        assert api.http.post("/credentials", json=body).status_code == 201
        with store.transaction() as tx:
            credential, now = credentials.of_tenant(tx, TENANT, [f"c{number}"])[f"c{number}"], tx.now()
        try:
            told.append(f"got {renewer.fresh(credential, now)}")
        except PermanentError as refused:
            told.append(refused.message)
    return told


def test_no_door_leads_to_a_private_address(door: Door, receiver: Receiver, port: int) -> None:
    urls = [f"http://{host}:{port}/hook" for host in HOSTS]
    told = dict(zip(HOSTS, door(urls, Egress()), strict=True))
    assert {host: why for host, why in told.items() if BLOCKED not in why} == {}
    assert receiver.received == []


def test_no_door_follows_a_name_that_is_rebound(
    door: Door, receiver: Receiver, port: int, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.egress.addresses, "is_public", lambda address: address == PUBLIC)
    url = f"http://rebinding.test:{port}/hook"
    for answers in (
        [(PRIVATE,)],
        [(PUBLIC, PRIVATE)],
        [(PRIVATE, PUBLIC)],
        [("::1", PUBLIC)],
        [("64:ff9b::1", PUBLIC)],
    ):
        names.answers["rebinding.test"] = answers
        (why,) = _by_a_step([url], Egress(resolve=names.resolve))
        assert why == BLOCKED
    names.asked.clear()
    names.answers["rebinding.test"] = [(PUBLIC,), (PRIVATE,)]
    receiver.answer = lambda _received: Answer(status=400, content=b"no")
    door([url], Egress(resolve=names.resolve))
    assert [got.path for got in receiver.received] == ["/hook"], (
        "the address that was checked is the one that is called"
    )
    assert names.asked["rebinding.test"] == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_door_follows_a_redirect_to_a_private_address(
    door: Door, receiver: Receiver, port: int, names: NameServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(orchestrator.egress.addresses, "is_public", lambda address: address == PUBLIC)
    names.answers["rebinding.test"] = [(PUBLIC,), (PRIVATE,)]
    receiver.answer = lambda _received: Answer(
        status=status, headers={"Location": f"http://rebinding.test:{port}/inside", "Connection": "close"}
    )
    door([f"http://rebinding.test:{port}/hook"], Egress(resolve=names.resolve))
    assert [got.path for got in receiver.received] == ["/hook"]


def test_addresses_that_may_not_be_called_are_not_stored(strict: Api, port: int) -> None:
    for host in HOSTS:
        url = f"http://{host}:{port}/hook"
        queue = {"tenant_id": TENANT, "queue_name": "q", "mode": "push", "push_url": url}
        assert strict.http.post("/queues/dispatch", json=queue).status_code == 400, host
        body = {"id": "c", "name": "n", "kind": "oauth2", "value": "v", "refresh_url": url, "refresh_token": "r"}
        assert strict.http.post("/credentials", json={**body, "tenant_id": TENANT}).status_code == 400, host
    assert strict.http.get("/queues/dispatch").json() == strict.http.get("/credentials").json() == []
