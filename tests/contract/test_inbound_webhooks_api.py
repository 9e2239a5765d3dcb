"""The public webhook (contract, api §1, §3.1, §15)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from orchestrator.api import inbound
from orchestrator.api.throttle import Throttle
from orchestrator.engine import Engine
from orchestrator.reconciler import Reconciler
from orchestrator.settings import Settings
from orchestrator.store import nonces
from orchestrator.store.postgres import PostgresStore
from tests.contract.client import CALL, TENANT, Api, definition, step
from tests.contract.signing import signed
from tests.support.serving import Reception


def make_trigger(api: Api, slug: str = "orders", **fields: Any) -> str:
    """Make a trigger of a new sequence; returns the sequence's name."""
    document = definition(step("work"))
    assert api.http.post("/sequences", json=document).status_code == 201
    body = {"slug": slug, "sequence_name": document["name"], "tenant_id": TENANT, "secret": "s3cret", **fields}
    assert api.http.post("/triggers", json=body).status_code == 201
    return document["name"]


def post(api: Api, content: bytes = b"{}", slug: str = "orders", *, headers: Any = None) -> httpx.Response:
    return api.deliver(slug, content, signed(content) if headers is None else headers)


def flows(api: Api) -> list[dict[str, Any]]:
    return api.http.get("/instances").json()["items"]


def test_api_15_a_webhook_starts_a_flow(api: Api) -> None:
    make_trigger(api)
    answer = post(api, b'{"n": [1]}', headers=signed(b'{"n": [1]}', user_agent="shop/1"))
    assert (answer.status_code, "deprecation" in answer.headers) == (202, False)
    assert answer.json() == {"instance_id": answer.json()["instance_id"], "trigger": "orders"}
    found = api.instance(answer.json()["instance_id"])
    assert (found["context"]["data"], found["state"]) == ({"n": [1]}, "waiting")
    assert found["metadata"] == {
        "_trigger": "orders",
        "_trigger_type": "webhook",
        "_trigger_event": {"source": "public_webhook", "user_agent": "shop/1"},
    }


@pytest.mark.parametrize("content_type", ["", "text/plain"])
def test_api_15_a_webhook_need_not_say_that_it_is_json(api: Api, content_type: str) -> None:
    make_trigger(api)
    assert post(api, headers=signed(b"{}", content_type=content_type)).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(b"{}", x_trigger_timestamp=""),
        signed(b"{}", x_trigger_nonce=""),
        signed(b"{}", x_orch8_signature=""),
        signed(b"{}", x_orch8_signature="v1=AAAA"),
        signed(b"{}", x_trigger_timestamp="soon"),
        signed(b"{}", nonce="short"),
        signed(b"{}", nonce="n" * 129),
        signed(b"{}", nonce="with a blank inside"),
        signed(b"{}", secret="other"),
        signed(b"[]"),
        {"x-trigger-secret": "s3cret"},
    ],
)
def test_api_15_a_webhook_must_be_signed(api: Api, headers: dict[str, str]) -> None:
    make_trigger(api)
    answer = post(api, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})
    assert flows(api) == []


@pytest.mark.parametrize(("age", "status"), [(290, 202), (310, 401), (-50, 202), (-70, 401)])
def test_api_15_a_signature_grows_old(api: Api, age: float, status: int) -> None:
    make_trigger(api)
    assert post(api, headers=signed(b"{}", age=age)).status_code == status


def test_api_15_a_nonce_is_used_once_for_each_slug(api: Api) -> None:
    make_trigger(api)
    make_trigger(api, "other")
    headers = signed(b"{}", nonce="n" * 16)
    assert [post(api, headers=headers).status_code for _ in range(2)] == [202, 401]
    assert post(api, b"[]", headers=signed(b"[]", nonce="n" * 16)).status_code == 401
    assert post(api, slug="other", headers=headers).status_code == 202
    assert api.http.post("/triggers/orders/fire", content=b"{}", headers=headers).status_code == 401
    assert len(flows(api)) == 2


def test_api_15_of_replays_at_once_one_starts_a_flow(api: Api) -> None:
    make_trigger(api)
    headers = signed(b"{}")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: post(api, headers=headers).status_code, range(8)))
    assert sorted(statuses) == [202, *[401] * 7]
    assert len(flows(api)) == 1


def test_api_15_a_nonce_is_taken_only_with_a_right_signature_and_a_flow(api: Api) -> None:
    make_trigger(api)
    good = signed(b"{}")
    assert post(api, headers={**good, "x-orch8-signature": "v1=AAAA"}).status_code == 401
    sequence = api.http.get("/sequences").json()["items"][0]["id"]
    api.http.post(f"/sequences/{sequence}/deprecate")
    assert post(api, headers=good).status_code == 404
    renewed = {**api.http.get(f"/sequences/{sequence}").json(), "version": 2, "deprecated": False}
    assert api.http.post("/sequences", json={**renewed, "id": definition()["id"]}).status_code == 201
    assert post(api, headers=good).status_code == 202


def test_api_15_nonces_are_good_again_after_six_minutes(api: Api, store: PostgresStore, settings: Settings) -> None:
    make_trigger(api)
    statuses = []
    for age in (0, 350, 370):
        with store.transaction() as tx:
            tx.execute("UPDATE nonces SET used_at = clock_timestamp() - %s * interval '1 second'", (age,))
        statuses.append(post(api, headers=signed(b"{}", nonce="n" * 16)).status_code)
    assert statuses == [202, 401, 202]
    with store.transaction() as tx:
        tx.execute("UPDATE nonces SET used_at = clock_timestamp() - interval '370 seconds'")
        assert nonces.take(tx, "orders", "m" * 16)
    Reconciler(api.engine, settings).tick()
    with store.transaction() as tx:
        assert tx.query("SELECT nonce FROM nonces") == [("m" * 16,)]


@pytest.mark.parametrize("fields", [{"trigger_type": "event"}, {"trigger_type": "nats"}])
def test_api_15_only_triggers_of_type_webhook_have_one(api: Api, fields: dict[str, Any]) -> None:
    make_trigger(api, **fields)
    assert post(api).status_code == 404


def test_api_15_which_triggers_answer_webhooks(api: Api) -> None:
    make_trigger(api)
    assert api.http.patch("/triggers/orders", json={"enabled": False}).status_code == 200
    assert post(api).status_code == 404
    assert post(api, slug="unknown").json() == {"error": "not found: trigger unknown"}
    assert api.http.patch("/triggers/orders", json={"enabled": True, "secret": None}).status_code == 200
    assert post(api).status_code == 401


@pytest.mark.parametrize("content", [b"", b"{", b"NaN", b"\xff", b'"\\ud800"', b'"\\u0000"', b"[" * 100 + b"]" * 100])
def test_api_15_what_is_no_json_is_400_after_the_signature(api: Api, content: bytes) -> None:
    make_trigger(api)
    answer = post(api, content)
    assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (400, "invalid argument")
    assert post(api, content, headers={}).status_code == 401
    assert flows(api) == []


@pytest.mark.parametrize("size", [300_000, 1_000_001, 3_000_000])
def test_api_15_too_much_is_413(api: Api, size: int) -> None:
    make_trigger(api)
    content = b'"' + b"x" * (size - 2) + b'"'
    answer = post(api, content)
    assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (413, "payload too large")


def test_api_20_8_repeated_webhooks_start_one_flow(api: Api) -> None:
    make_trigger(api, config={"idempotency_key": "order.id"})
    first, again = (post(api, b'{"order": {"id": 7}}') for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == {**first.json(), "deduplicated": True}


def test_api_15_a_sender_that_comes_too_often_is_429_before_anything_else(
    api: Api, reception: Reception, engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trigger(api)
    monkeypatch.setattr(inbound.time, "monotonic", lambda: 0.0)
    with httpx.Client(**CALL) as http:
        for _ in range(300):
            assert http.post(f"{api.root}/webhooks/orders").status_code == 401
        refused = http.post(f"{api.root}/webhooks/orders", content=b"x" * 2_000_000)
        assert (refused.status_code, refused.json()) == (429, {"error": "rate limit exceeded: webhook orders"})
        assert http.post(f"{api.root}/webhooks/other").status_code == 404


def test_api_15_the_limit_slides() -> None:
    throttle = Throttle()
    assert [throttle.admit(("a", "s"), 0.001 * n) for n in range(301)] == [*[True] * 300, False]
    assert not throttle.admit(("a", "s"), 0.999)
    assert throttle.admit(("b", "s"), 0.999)
    assert [throttle.admit(("a", "s"), 1.0), throttle.admit(("a", "s"), 1.0)] == [True, False]


def test_api_15_senders_that_are_silent_are_forgotten() -> None:
    throttle = Throttle()
    for n in range(1000):
        throttle.admit(("peer", str(n)), float(n))
    assert len(throttle._admitted) == 1


def test_api_3_1_webhooks_ask_for_no_key_and_stand_at_the_root(
    api: Api, reception: Reception, engine: Engine, settings: Settings
) -> None:
    make_trigger(api)
    make_trigger(api, "outbox")
    closed = reception.address(engine, settings.model_copy(update={"api_key": "root"}))
    key = {"x-api-key": "root", "x-tenant-id": TENANT}
    with httpx.Client(base_url=closed, **CALL) as http:
        assert http.post("/webhooks/orders", content=b"{}", headers=signed(b"{}")).status_code == 202
        for path in ("/api/v1/webhooks/orders", "/webhooks/outbox", "/webhooks/deliveries", "/webhooks/orders/more"):
            assert http.post(path, content=b"{}", headers=signed(b"{}")).status_code == 401
        assert http.post("/api/v1/webhooks/orders", content=b"{}", headers={**signed(b"{}"), **key}).status_code == 404
        for path in ("/webhooks/outbox", "/webhooks/deliveries"):
            answer = http.post(path, content=b"{}", headers={**signed(b"{}"), **key})
            assert (answer.status_code in {404, 405}, "deprecation" in answer.headers) == (True, True)
        assert http.get("/webhooks/orders").status_code == 401
        assert http.get("/webhooks/orders", headers=key).status_code == 405
