"""Outbound webhooks: to a real receiver, and over HTTP (contract, api §16)."""

import subprocess
import threading
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator import posting
from orchestrator.courier import Courier
from orchestrator.engine import Engine
from orchestrator.loops import LoopRunner
from orchestrator.outbox import Outbox
from orchestrator.settings import Settings
from orchestrator.store import webhooks
from orchestrator.store.postgres import PostgresStore
from tests.contract.client import CALL, TENANT, Api, definition, step
from tests.support.receiver import Answer, Receiver
from tests.support.waiting import wait_until

SECRET = "shared between us"


@pytest.fixture
def settings(settings: Settings, receiver: Receiver) -> Settings:
    told = {"webhook_urls": (receiver.url,), "webhook_secret": SECRET, "allow_internal_urls": True}
    return settings.model_copy(update=told)


@pytest.fixture
def outbox(store: PostgresStore, engine: Engine, settings: Settings) -> Outbox:
    return Outbox(store, engine.new_id, settings)


@pytest.fixture
def courier(outbox: Outbox, receiver: Receiver) -> Courier:
    return Courier(outbox, receiver.url, 1)


def end(api: Api, count: int = 1) -> list[str]:
    """Start instances of one step, and complete them."""
    sequence = api.sequence(step("a"))
    ids = [api.start_of(sequence) for _ in range(count)]
    for _ in ids:
        api.report(api.poll()[0], "complete", output={})
    return ids


def be_due(api: Api) -> None:
    """Let what waits for its next try be due."""
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE webhook_outbox SET due_at = clock_timestamp() WHERE status = 'pending'")


def try_until_parked(api: Api, courier: Courier) -> int:
    """Tick until nothing is pending; returns how many tries that were."""
    tries = 0
    while api.http.get("/webhooks/outbox").json()[0]["status"] == "pending":
        be_due(api)
        courier.tick()
        tries += 1
    return tries


def listed(api: Api) -> list[dict[str, Any]]:
    answer = api.http.get("/webhooks/outbox")
    assert answer.status_code == 200
    return answer.json()


def metric(api: Api, name: str) -> float:
    text = httpx.get(f"{api.root}/metrics", headers={"X-Tenant-Id": TENANT}, **CALL).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}_total ")))


# -- whose it is -----------------------------------------------------------------------------------------------------


def test_api_16_each_tenant_meets_its_own_events_alone(api: Api, courier: Courier, receiver: Receiver) -> None:
    [instance_id] = end(api)
    receiver.answer = lambda _received: Answer(status=400)
    assert courier.tick().done == 1
    [entry] = listed(api)
    assert entry["instance_id"] == instance_id
    row, tries = f"/webhooks/outbox/{entry['id']}", f"/webhooks/deliveries/{entry['delivery_id']}"
    other = {"X-Tenant-Id": "other"}
    for path in ("/webhooks/outbox", "/webhooks/deliveries"):
        assert api.http.get(path, headers=other).json() == []
        assert len(api.http.get(path).json()) == 1
    for method, path in (("GET", tries), ("GET", f"{row}/redeliver-preview"), ("POST", f"{row}/redeliver")):
        answer = api.http.request(method, path, headers=other)
        assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (404, "not found")
    assert api.http.delete(row, headers=other).status_code == 404
    assert len(api.http.get(tries).json()) == len(receiver.received) == 1
    assert api.http.delete(row).status_code == 204


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_api_16_end_of_an_instance_is_told_signed(api: Api, courier: Courier, receiver: Receiver) -> None:
    [instance_id] = end(api)
    assert courier.tick().done == 1
    [got] = receiver.received
    assert got.headers["content-type"] == "application/json"
    told = got.json()
    assert list(told) == ["event_type", "instance_id", "timestamp", "data"]
    assert (told["event_type"], told["instance_id"], told["data"]) == ("instance.completed", instance_id, {})
    assert str(told["timestamp"]).endswith("Z")
    signed = f"{got.headers['x-orch8-timestamp']}.".encode() + got.content
    assert got.headers["x-orch8-signature"] == f"sha256={openssl_hmac(SECRET, signed)}"
    assert got.headers["x-orch8-signature"] != f"sha256={openssl_hmac('another', signed)}"
    assert "x-orch8-second-signature" not in got.headers
    assert listed(api) == []
    assert metric(api, "orch8_webhooks_sent") == 1


def openssl_hmac(secret: str, content: bytes) -> str:
    """Sign with another implementation than ours."""
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{secret.encode().hex()}"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode().split()[-1]


def test_api_16_without_a_secret_nothing_is_signed(
    api: Api, store: PostgresStore, engine: Engine, settings: Settings, receiver: Receiver
) -> None:
    end(api)
    plain = Outbox(store, engine.new_id, settings.model_copy(update={"webhook_secret": ""}))
    Courier(plain, receiver.url, 1).tick()
    assert not {"x-orch8-signature", "x-orch8-timestamp"} & set(receiver.received[0].headers)


def test_api_16_two_secrets_sign_while_one_takes_the_place_of_the_other(
    api: Api, store: PostgresStore, engine: Engine, settings: Settings, receiver: Receiver
) -> None:
    end(api)
    both = Outbox(store, engine.new_id, settings.model_copy(update={"webhook_second_secret": "the next one"}))
    Courier(both, receiver.url, 1).tick()
    [got] = receiver.received
    signed = f"{got.headers['x-orch8-timestamp']}.".encode() + got.content
    assert got.headers["x-orch8-signature"] == f"sha256={openssl_hmac(SECRET, signed)}"
    assert got.headers["x-orch8-second-signature"] == f"sha256={openssl_hmac('the next one', signed)}"


def test_api_16_failure_names_its_step(api: Api, courier: Courier, receiver: Receiver) -> None:
    retry = {"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1}
    api.start(step("first"), step("work", retry=retry))
    api.complete({})
    api.fail("no luck", retryable=True)
    api.pass_time()
    api.fail("no luck", retryable=True)
    courier.tick()
    told = receiver.received[0].json()
    assert told["event_type"] == "instance.failed"
    assert told["data"] == {"error": "no luck", "block_id": "work", "attempts": 2}


def test_api_16_failure_by_hand_is_told_and_a_cancelled_or_dry_flow_is_not(
    api: Api, courier: Courier, receiver: Receiver
) -> None:
    failed, cancelled = api.start(step("a")), api.start(step("a"))
    assert api.http.patch(f"/instances/{failed}/state", json={"state": "failed"}).status_code == 200
    assert api.signal(cancelled, "cancel").status_code == 201
    api.start(step("a", handler="noop"), dry_run=True)
    api.run_builtins()
    courier.tick()
    assert [got.json()["instance_id"] for got in receiver.received] == [failed]
    assert "error" in receiver.received[0].json()["data"]  # type: ignore[operator]


def test_api_16_breach_of_an_sla_is_told(api: Api, courier: Courier, receiver: Receiver) -> None:
    document = definition(step("a"), sla={"max_runtime": 1})
    assert api.http.post("/sequences", json=document).status_code == 201
    instance_id = api.start_of(document["id"])
    api.pass_time()
    courier.tick()
    told = receiver.received[0].json()
    data = told["data"]
    assert isinstance(data, dict)
    assert (told["event_type"], told["instance_id"]) == ("instance.sla_breached", instance_id)
    assert (data["instance_id"], data["type"], data["limit_ms"]) == (instance_id, "max_runtime", 1)
    assert data["elapsed_ms"] >= 1


def test_api_16_events_of_an_instance_come_in_order(api: Api, courier: Courier, receiver: Receiver) -> None:
    instance_id = api.start(step("a"))
    api.fail("one")
    assert api.http.post(f"/instances/{instance_id}/retry").status_code == 200
    api.complete({})
    receiver.answer = lambda _received: Answer(status=503)
    assert courier.tick().done == 1
    be_due(api)
    receiver.answer = lambda _received: Answer()
    while courier.tick().done:
        pass
    told = [got.json()["event_type"] for got in receiver.received]
    assert told == ["instance.failed", "instance.failed", "instance.completed"]


def test_api_16_nothing_is_written_when_nobody_listens(api: Api, store: PostgresStore, settings: Settings) -> None:
    engine = Engine(store, None, settings.model_copy(update={"webhook_urls": ()}))
    quiet = Api(api.http, engine)
    quiet.start(step("a", handler="noop"))
    quiet.run_builtins()
    assert listed(api) == []


def test_api_16_every_address_is_told(store: PostgresStore, settings: Settings, api: Api) -> None:
    urls = ("http://127.0.0.1:9/a", "http://127.0.0.1:9/b")
    engine = Engine(store, None, settings.model_copy(update={"webhook_urls": urls}))
    told = Api(api.http, engine)
    told.start(step("a", handler="noop"))
    told.run_builtins()
    assert sorted(each["url"] for each in listed(api)) == list(urls)


# -- receivers that are down, slow, or refuse ------------------------------------------------------------------------


def test_api_16_receiver_that_is_down_for_a_while_gets_each_event(
    api: Api, courier: Courier, receiver: Receiver
) -> None:
    """Nothing is set forward here: the waits are real."""
    receiver.close()
    ids = end(api, 3)
    runner = LoopRunner(courier)
    runner.start()
    try:
        wait_until(lambda: all(each["attempts"] for each in listed(api)), "the first tries", within=60)
        receiver.open()
        wait_until(lambda: listed(api) == [], "the outbox to be empty", within=60)
    finally:
        runner.stop()
    assert sorted(str(got.json()["instance_id"]) for got in receiver.received) == sorted(ids)
    assert metric(api, "orch8_webhooks_failed") >= 3
    assert metric(api, "orch8_webhooks_parked") == 0


def test_api_16_slow_receiver_delays_no_other_and_is_given_up_in_time(
    api: Api, courier: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "TIMEOUT", posting.TIMEOUT / 50)
    let_go = threading.Event()
    slow = end(api, 2)[0]
    receiver.answer = lambda got: Answer(first=let_go.wait) if slow in got.content.decode() else Answer()
    try:
        assert courier.tick().done == 2
    finally:
        let_go.set()
    [waiting] = listed(api)
    assert (waiting["instance_id"], waiting["status"], waiting["attempts"]) == (slow, "pending", 1)
    attempts = api.http.get(f"/webhooks/deliveries/{waiting['delivery_id']}").json()
    assert [attempt["error_class"] for attempt in attempts] == ["timeout"]


def test_api_16_receiver_that_fails_is_tried_four_times_then_the_event_is_parked(
    api: Api, courier: Courier, receiver: Receiver
) -> None:
    receiver.answer = lambda _received: Answer(status=500, content=b"out of order")
    [instance_id] = end(api)
    assert try_until_parked(api, courier) == 4
    be_due(api)
    assert courier.tick().done == 0
    assert len(receiver.received) == 4
    [parked] = listed(api)
    assert {"id", "url", "payload", "created_at", "delivery_id"} < set(parked)
    assert not {"next_attempt_at", "claimed_at"} & set(parked)
    assert (parked["attempts"], parked["instance_id"]) == (4, instance_id)
    assert (parked["event_type"], parked["last_error"]) == ("instance.completed", "HTTP 500: out of order")
    assert parked["payload"] == receiver.received[0].json()
    assert len({got.content for got in receiver.received}) == 1
    assert metric(api, "orch8_webhooks_parked") == 1


def test_api_16_waits_grow(api: Api, courier: Courier, receiver: Receiver, store: PostgresStore) -> None:
    receiver.answer = lambda _received: Answer(status=503)
    end(api)
    waits = []
    for _ in range(3):
        be_due(api)
        courier.tick()
        with store.transaction() as tx:
            waits.append(tx.query("SELECT extract(epoch FROM due_at - clock_timestamp()) FROM webhook_outbox")[0][0])
    assert [round(float(wait) * 2 + 0.4) / 2 for wait in waits] == [0.5, 1, 2]


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (204, "sent"),
        (302, "sent"),
        (400, "parked"),
        (404, "parked"),
        (410, "parked"),
        (408, "pending"),
        (429, "pending"),
        (500, "pending"),
        (503, "pending"),
    ],
)
def test_api_16_status_decides(api: Api, courier: Courier, receiver: Receiver, status: int, fate: str) -> None:
    receiver.answer = lambda _received: Answer(status=status, headers={"Location": f"{receiver.url}/elsewhere"})
    end(api)
    courier.tick()
    assert [each["status"] for each in listed(api)] == ([] if fate == "sent" else [fate])
    assert [got.path for got in receiver.received] == ["/hook"]


def test_api_16_private_addresses_are_not_told(
    api: Api, store: PostgresStore, engine: Engine, settings: Settings, receiver: Receiver
) -> None:
    end(api)
    guarded = Outbox(store, engine.new_id, settings.model_copy(update={"allow_internal_urls": False}))
    Courier(guarded, receiver.url, 1).tick()
    assert receiver.received == []
    [parked] = listed(api)
    assert (parked["status"], parked["last_error"].partition(":")[0]) == ("parked", "internal_policy")


def test_api_16_sender_that_dies_loses_nothing(
    api: Api, courier: Courier, receiver: Receiver, store: PostgresStore
) -> None:
    end(api)
    with store.transaction() as tx:
        assert webhooks.claim_due(tx, receiver.url, lease=posting.TIMEOUT, limit=10)
    [claimed] = listed(api)
    assert claimed["status"] == "in_flight"
    assert "claimed_at" in claimed
    assert courier.tick().done == 0
    assert api.http.post(f"/webhooks/outbox/{claimed['id']}/redeliver").status_code == 409
    with store.transaction() as tx:
        tx.execute("UPDATE webhook_outbox SET due_at = clock_timestamp()")
    assert courier.tick().done == 1
    assert len(receiver.received) == 1
    assert listed(api) == []


def test_api_16_services_share_the_work(api: Api, outbox: Outbox, receiver: Receiver) -> None:
    ids = end(api, 12)
    couriers = [Courier(outbox, receiver.url, 1) for _ in range(3)]
    threads = [threading.Thread(target=courier.tick) for courier in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(got.json()["instance_id"]) for got in receiver.received) == sorted(ids)


# -- administration --------------------------------------------------------------------------------------------------


@pytest.fixture
def parked(api: Api, courier: Courier, receiver: Receiver) -> dict[str, Any]:
    receiver.answer = lambda _received: Answer(status=400, content=b"not for me")
    end(api)
    courier.tick()
    return listed(api)[0]


def test_api_16_parked_event_is_sent_again(api: Api, parked: dict[str, Any], receiver: Receiver) -> None:
    path = f"/webhooks/outbox/{parked['id']}"
    answer = api.http.post(f"{path}/redeliver")
    assert (answer.status_code, answer.json()["error"]) == (502, "bad gateway: HTTP 400: not for me")
    [still] = listed(api)
    assert (still["status"], still["attempts"]) == ("parked", 2)
    receiver.answer = lambda _received: Answer()
    answer = api.http.post(f"{path}/redeliver")
    assert (answer.status_code, answer.json()["redelivered"]) == (200, True)
    assert listed(api) == []
    [attempt] = api.http.get(f"/webhooks/deliveries/{answer.json()['delivery_id']}").json()
    assert (attempt["success"], attempt["status_code"], attempt["signed"]) == (True, 200, True)
    assert "error_class" not in attempt
    assert api.http.post(f"{path}/redeliver").status_code == 404


def test_api_16_preview_says_what_would_be_sent(api: Api, parked: dict[str, Any], receiver: Receiver) -> None:
    preview = api.http.get(f"/webhooks/outbox/{parked['id']}/redeliver-preview").json()
    assert preview == {
        "url": receiver.url,
        "event_type": "instance.completed",
        "payload_bytes": len(receiver.received[0].content),
        "will_be_signed": True,
        "previous_delivery_id": parked["delivery_id"],
        "previous_attempts": 1,
        "last_error": "HTTP 400: not for me",
    }
    assert len(receiver.received) == 1


def test_api_16_parked_event_is_deleted(api: Api, parked: dict[str, Any]) -> None:
    path = f"/webhooks/outbox/{parked['id']}"
    assert api.http.delete(path).status_code == 204
    assert listed(api) == []
    assert api.http.delete(path).status_code == 404


def test_api_16_unknown_events_are_404(api: Api) -> None:
    path = f"/webhooks/outbox/{uuid4()}"
    answers = [
        api.http.post(f"{path}/redeliver"),
        api.http.get(f"{path}/redeliver-preview"),
        api.http.delete(path),
        api.http.get(f"/webhooks/deliveries/{uuid4()}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert api.http.delete("/webhooks/outbox/1").status_code == 400


def test_api_16_deliveries_are_listed_and_filtered(
    api: Api, parked: dict[str, Any], courier: Courier, receiver: Receiver
) -> None:
    receiver.answer = lambda _received: Answer()
    [other] = end(api)
    courier.tick()
    newest, oldest = api.http.get("/webhooks/deliveries").json()
    assert (newest["instance_id"], newest["delivered"], newest["attempts"]) == (other, True, 1)
    assert (oldest["delivery_id"], oldest["delivered"]) == (parked["delivery_id"], False)
    assert (oldest["last_status_code"], oldest["last_error_class"]) == (400, "http_status")
    for query, found in (
        ("delivered=false", [oldest]),
        ("error_class=http_status", [oldest]),
        ("error_class=dns", []),
        ("event_type=instance.failed", []),
        ("limit=1", [newest]),
        (f"url={receiver.url}", [newest, oldest]),
    ):
        assert api.http.get(f"/webhooks/deliveries?{query}").json() == found
    assert api.http.get("/webhooks/deliveries?error_class=unknown").status_code == 400
    assert api.http.get("/webhooks/deliveries?delivered=perhaps").status_code == 400


def test_api_16_event_of_an_instance_that_is_deleted_is_sent_all_the_same(
    api: Api, courier: Courier, receiver: Receiver
) -> None:
    [instance_id] = end(api)
    sequence_id = api.instance(instance_id)["sequence_id"]
    assert api.http.delete(f"/sequences/{sequence_id}").status_code == 204
    assert api.http.get(f"/instances/{instance_id}").status_code == 404
    assert courier.tick().done == 1
    assert [got.json()["instance_id"] for got in receiver.received] == [instance_id]


def test_api_16_history_is_bounded(api: Api, parked: dict[str, Any], store: PostgresStore) -> None:
    with store.transaction() as tx:
        tx.execute(
            "INSERT INTO webhook_attempts SELECT gen_random_uuid(), gen_random_uuid(), 'u', 'e', instance_id, 1, "
            "attempted_at - n * interval '1 second', 1, true, 200, NULL, NULL, false "
            "FROM webhook_attempts, generate_series(1, 20) AS n"
        )
        webhooks.forget(tx, older_than=posting.TIMEOUT * 1000, beyond=4)
        assert tx.query("SELECT count(*) FROM webhook_attempts")[0][0] == 5
        webhooks.forget(tx, older_than=posting.TIMEOUT * 0, beyond=100)
        assert tx.query("SELECT count(*) FROM webhook_attempts")[0][0] == 0


def test_api_16_ids_sort_by_time(api: Api, parked: dict[str, Any]) -> None:
    assert {UUID(parked[name]).version for name in ("id", "delivery_id")} == {7}
