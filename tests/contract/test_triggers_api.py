"""Triggers, and the built-ins that reach other flows, over HTTP (contract, api §15, §20.8; sequences §11)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish
from orchestrator.store.claiming import Worker
from orchestrator.store.postgres import PostgresTransaction
from tests.contract.client import TENANT, Api, definition, step
from tests.contract.signing import signed
from workers.attempt import run
from workers.handlers.builtin import builtin_registry

HANDLERS = builtin_registry()


def run_builtins(engine: Engine, *, report: bool = True) -> None:
    """Run in-process steps with their real handlers; without `report`, die between the handler and the report."""
    worker = Worker(id=uuid4(), name="w")
    while claims := engine.claim(worker, Wish(queue="default", handlers=list(HANDLERS.names()))):
        for work in engine.inputs(claims):
            outcome = run(work, HANDLERS.find(work.claim.handler), engine)
            if not report:
                engine.lose([work.claim], "gone")
                return
            engine.finish([Report(claim=work.claim, outcome=outcome)])


@pytest.fixture
def target(api: Api) -> str:
    """The name of a sequence to be triggered."""
    document = definition(step("work"))
    assert api.http.post("/sequences", json=document).status_code == 201
    return document["name"]


def body(target: str, slug: str = "orders", **fields: Any) -> dict[str, Any]:
    return {"slug": slug, "sequence_name": target, "tenant_id": TENANT, **fields}


Create = Callable[..., dict[str, Any]]


@pytest.fixture
def create(api: Api, target: str) -> Create:
    def create(slug: str = "orders", **fields: Any) -> dict[str, Any]:
        answer = api.http.post("/triggers", json=body(target, slug, **fields))
        assert answer.status_code == 201, answer.text
        return answer.json()

    return create


def fire(api: Api, payload: Any = None, slug: str = "orders", **options: Any) -> httpx.Response:
    return api.http.post(f"/triggers/{slug}/fire", json=payload, **options)


# -- the objects --------------------------------------------------------------------------------------------------


def test_api_15_create_and_read(api: Api, create: Create, target: str) -> None:
    made = create(secret="s3cret", config={"a": 1})
    assert {name: made[name] for name in made if not name.endswith("_at")} == {
        "slug": "orders",
        "sequence_name": target,
        "tenant_id": TENANT,
        "namespace": "default",
        "enabled": True,
        "trigger_type": "webhook",
        "config": {"a": 1},
        "secret": "[REDACTED]",
    }
    assert api.http.get("/triggers/orders").json() == made
    assert api.http.get("/triggers").json() == [made]
    assert "secret" not in create("plain")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"slug": None}, 422),
        ({"slug": ""}, 400),
        ({"slug": "x" * 300}, 400),
        ({"sequence_name": "x" * 300}, 400),
        ({"secret": ""}, 400),
        ({"trigger_type": "pigeon"}, 422),
        ({"sequence_name": "nothing"}, 404),
        ({"version": 9}, 404),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_api_15_what_cannot_be_created(api: Api, target: str, fields: dict[str, Any], status: int) -> None:
    written = {name: value for name, value in {**body(target), **fields}.items() if value is not None}
    assert api.http.post("/triggers", json=written).status_code == status
    assert api.http.get("/triggers").json() == []


def test_api_15_a_slug_is_taken_by_anyone(api: Api, create: Create) -> None:
    create()
    other = {"X-Tenant-Id": "other"}
    document = definition(step("a"), tenant_id="other")
    assert api.http.post("/sequences", json=document, headers=other).status_code == 201
    taken = {"slug": "orders", "sequence_name": document["name"], "tenant_id": "other"}
    assert api.http.post("/triggers", json=taken, headers=other).status_code == 409
    for method in ("GET", "DELETE"):
        assert api.http.request(method, "/triggers/orders", headers=other).status_code == 404
    assert fire(api, {}, headers=other).status_code == 404
    assert api.http.get("/triggers", headers=other).json() == []


def test_api_20_8_change_and_delete(api: Api, create: Create) -> None:
    create(secret="s3cret")
    changed = api.http.patch("/triggers/orders", json={"enabled": False, "secret": None}).json()
    assert (changed["enabled"], "secret" in changed, changed["config"]) == (False, False, None)
    assert fire(api, {}).status_code == 400
    assert api.http.patch("/triggers/orders", json={"version": 9}).status_code == 404
    assert api.http.patch("/triggers/orders", json={"secret": ""}).status_code == 400
    assert api.http.delete("/triggers/orders").status_code == 204
    for answer in (api.http.delete("/triggers/orders"), api.http.get("/triggers/orders"), fire(api, {})):
        assert answer.status_code == 404
    assert api.http.patch("/triggers/orders", json={}).status_code == 404


# -- firing -------------------------------------------------------------------------------------------------------


def test_api_15_fire_starts_a_flow_with_the_payload(api: Api, create: Create, target: str) -> None:
    create()
    answer = fire(api, {"n": [1]})
    assert answer.status_code == 201
    assert answer.json() == {
        "instance_id": answer.json()["instance_id"],
        "trigger": "orders",
        "sequence_name": target,
    }
    found = api.instance(answer.json()["instance_id"])
    assert (found["context"]["data"], found["state"]) == ({"n": [1]}, "waiting")
    assert found["metadata"] == {
        "_trigger": "orders",
        "_trigger_type": "webhook",
        "_trigger_event": {"source": "http_fire"},
    }


def test_api_15_a_secret_must_be_known(api: Api, create: Create) -> None:
    create(secret="s3cret")
    for headers in ({}, {"x-trigger-secret": "wrong"}):
        refused = fire(api, {}, headers=headers)
        assert (refused.status_code, refused.json()) == (401, {"error": "unauthorized"})
    assert fire(api, {}, headers={"x-trigger-secret": "s3cret"}).status_code == 201


# -- a new secret without a gap -----------------------------------------------------------------------------------


def fired_with(api: Api, secret: str) -> list[int]:
    """Fire with a secret named, with a signature, and through the public webhook; returns the statuses."""
    return [
        fire(api, {}, headers={"x-trigger-secret": secret}).status_code,
        api.http.post("/triggers/orders/fire", content=b"{}", headers=signed(b"{}", secret=secret)).status_code,
        api.deliver("orders", b"{}", signed(b"{}", secret=secret)).status_code,
    ]


def rotate(api: Api, secret: str | None, **fields: Any) -> dict[str, Any]:
    answer = api.http.patch("/triggers/orders", json={"secret": secret, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


GOOD, BAD = [201, 201, 202], [401, 401, 401]


def test_api_20_8_two_secrets_are_good_while_they_overlap(api: Api, create: Create) -> None:
    create(secret="old")
    changed = rotate(api, "new", overlap_secs=3600)
    assert (changed["secret"], "previous_secret" in changed) == ("[REDACTED]", False)
    left = datetime.fromisoformat(changed["previous_secret_until"]) - datetime.fromisoformat(changed["updated_at"])
    assert timedelta(seconds=3590) < left <= timedelta(seconds=3600)
    assert [fired_with(api, secret) for secret in ("old", "new", "other")] == [GOOD, GOOD, BAD]
    repeated = rotate(api, "new", overlap_secs=3600)
    assert repeated["previous_secret_until"] > changed["previous_secret_until"]
    assert api.http.patch("/triggers/orders", json={"config": {"a": 1}}).json()["previous_secret_until"]
    assert [fired_with(api, secret) for secret in ("old", "new")] == [GOOD, GOOD]
    assert "previous_secret_until" not in rotate(api, "new")
    assert [fired_with(api, secret) for secret in ("old", "new")] == [BAD, GOOD]


def test_api_20_8_only_the_last_secret_overlaps(api: Api, create: Create) -> None:
    create(secret="first")
    rotate(api, "second", overlap_secs=60)
    rotate(api, "third", overlap_secs=60)
    assert [fired_with(api, secret) for secret in ("first", "second", "third")] == [BAD, GOOD, GOOD]
    rotate(api, "fourth")
    assert [fired_with(api, secret) for secret in ("third", "fourth")] == [BAD, GOOD]
    assert "previous_secret_until" not in rotate(api, None)
    assert fire(api, {}).status_code == 201
    assert "previous_secret_until" not in rotate(api, "fifth", overlap_secs=60)
    assert fired_with(api, "fourth") == BAD


def test_api_20_8_an_overlap_ends(api: Api, create: Create) -> None:
    create(secret="old")
    rotate(api, "new", overlap_secs=60)
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE triggers SET previous_secret_until = clock_timestamp() - interval '1 millisecond'")
    assert [fired_with(api, secret) for secret in ("old", "new")] == [BAD, GOOD]
    assert "previous_secret_until" not in api.http.get("/triggers/orders").json()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"overlap_secs": 60}, 400),
        ({"secret": None, "overlap_secs": 60}, 400),
        ({"secret": "new", "overlap_secs": 30 * 86_400 + 1}, 400),
        ({"secret": "new", "overlap_secs": -1}, 422),
        ({"secret": "new", "overlap_secs": 2**63}, 422),
        ({"secret": "new", "overlap_secs": "60"}, 422),
        ({"secret": "new", "overlap_secs": None}, 422),
        ({"secret": " ", "overlap_secs": 60}, 400),
    ],
)
def test_api_20_8_what_is_no_overlap(api: Api, create: Create, fields: dict[str, Any], status: int) -> None:
    create(secret="old")
    assert api.http.patch("/triggers/orders", json=fields).status_code == status
    assert [fired_with(api, secret) for secret in ("old", "new")] == [GOOD, BAD]


@pytest.mark.parametrize(("age", "status"), [(0, 201), (200, 201), (400, 401), (-120, 401)])
def test_api_20_8_a_signature_stands_in_for_the_secret(api: Api, create: Create, age: int, status: int) -> None:
    create(secret="s3cret")
    content = b'{"x":1}'
    headers = signed(content, age=age)
    assert api.http.post("/triggers/orders/fire", content=content, headers=headers).status_code == status
    assert api.http.post("/triggers/orders/fire", content=b'{"x":2}', headers=headers).status_code == 401


def test_api_20_8_a_signature_starts_one_flow(api: Api, create: Create) -> None:
    create(secret="s3cret")
    headers = signed(b"{}")
    answers = [api.http.post("/triggers/orders/fire", content=b"{}", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 401]
    assert answers[1].json() == {"error": "unauthorized"}


def test_api_15_a_secret_may_be_any_text(api: Api, create: Create) -> None:
    create(secret="gehört uns")
    assert fire(api, {}, headers={"x-trigger-secret": "gehört uns".encode()}).status_code == 201
    assert fire(api, {}, headers={"x-trigger-secret": "gehort uns"}).status_code == 401


@pytest.mark.parametrize("secret", ["enc:v1:AAAA", "enc:v2:AAAA"])
def test_api_15_a_secret_that_looks_sealed_is_refused(api: Api, create: Create, target: str, secret: str) -> None:
    assert api.http.post("/triggers", json=body(target, secret=secret)).status_code == 400
    create()
    assert api.http.patch("/triggers/orders", json={"secret": secret}).status_code == 400
    assert api.http.get("/triggers").status_code == 200


def test_api_15_the_sequence_is_found_when_the_trigger_fires(api: Api, create: Create, target: str) -> None:
    create()
    newer = definition(step("newer"), name=target, version=2)
    assert api.http.post("/sequences", json=newer).status_code == 201
    assert api.instance(fire(api, {}).json()["instance_id"])["sequence_id"] == newer["id"]
    assert api.http.post(f"/sequences/{newer['id']}/deprecate").status_code == 204
    assert api.instance(fire(api, {}).json()["instance_id"])["sequence_id"] != newer["id"]
    create("pinned", version=2)
    assert api.instance(fire(api, {}, "pinned").json()["instance_id"])["sequence_id"] == newer["id"]


def test_api_15_no_version_left_is_404_and_a_bad_payload_422(api: Api) -> None:
    schema = {"type": "object", "required": ["n"]}
    document = definition(step("a"), input_schema=schema)
    sequence = api.http.post("/sequences", json=document).json()["id"]
    assert api.http.post("/triggers", json=body(document["name"])).status_code == 201
    assert fire(api, {"m": 1}).status_code == 422
    api.http.post(f"/sequences/{sequence}/deprecate")
    assert fire(api, {"n": 1}).status_code == 404


@pytest.mark.parametrize(
    "key", ["{{ data.order.id }}", "{{ payload.order.id }}", "{{ order.id }}", "order.id", "data.order.id"]
)
def test_api_20_8_repeated_fires_start_one_flow(api: Api, create: Create, key: str) -> None:
    create(config={"idempotency_key": key})
    first, again, other = (fire(api, {"order": {"id": n}}) for n in ("a", "a", "b"))
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    assert again.json() == {**first.json(), "deduplicated": True}
    assert api.instance(first.json()["instance_id"])["idempotency_key"] == "a"
    assert len({fire(api, {"no": "key"}).json()["instance_id"] for _ in range(2)}) == 2


# -- emit_event ---------------------------------------------------------------------------------------------------


def emit(slug: str = "orders", **params: Any) -> dict[str, Any]:
    return step("emit", "emit_event", params={"trigger_slug": slug, **params})


def emitted(api: Api, instance_id: str) -> dict[str, Any]:
    return api.outputs(instance_id)[-1]["output"]


def effects(api: Api, instance_id: str) -> list[dict[str, Any]]:
    answer = api.http.get(f"/instances/{instance_id}/effects")
    assert answer.status_code == 200
    return answer.json()


def test_s11_emit_event_starts_a_flow(api: Api, create: Create, target: str) -> None:
    create(trigger_type="event")
    meta = {"source": "spoofed", "parent_instance_id": "spoofed", "why": "test"}
    parent = api.start(emit(data={"n": "{{ data.n }}"}, meta=meta), data={"n": 1})
    run_builtins(api.engine)
    output = emitted(api, parent)
    assert output == {"instance_id": output["instance_id"], "sequence_name": target, "deduped": False}
    child = api.instance(output["instance_id"])
    assert (child["context"]["data"], child["state"], child["parent_instance_id"]) == ({"n": 1}, "waiting", None)
    assert child["metadata"] == {
        "_trigger": "orders",
        "_trigger_type": "event",
        "_trigger_event": {"source": "emit_event", "parent_instance_id": parent, "why": "test"},
    }
    (effect,) = effects(api, parent)
    assert (effect["kind"], effect["state"], effect["block_id"]) == ("message", "committed", "emit")
    assert (effect["provider_receipt_id"], effect["idempotency_key"]) == (output["instance_id"], None)
    assert api.http.get(f"/instances/{parent}/effects", headers={"X-Tenant-Id": "other"}).status_code == 404


def test_s11_emit_event_run_again_after_a_death_emits_once(api: Api, create: Create, engine: Engine) -> None:
    create()
    parent = api.start(emit())
    run_builtins(engine, report=False)
    run_builtins(engine)
    (effect,) = effects(api, parent)
    assert emitted(api, parent)["instance_id"] == effect["provider_receipt_id"]
    assert len(api.poll("outside", limit=9)) == 1


def test_s11_emit_event_run_again_after_a_migration_emits_once(api: Api, create: Create, engine: Engine) -> None:
    create()
    parent = api.start(emit())
    run_builtins(engine, report=False)
    request = {"instance_id": parent, "target_sequence_id": api.sequence(emit())}
    assert api.http.post("/sequences/migrate-instance", json=request).status_code == 200
    run_builtins(engine)
    (effect,) = effects(api, parent)
    assert emitted(api, parent)["instance_id"] == effect["provider_receipt_id"]
    assert len(api.poll("outside", limit=9)) == 1


def test_s11_two_workers_that_emit_for_one_step_at_once_emit_once(
    api: Api, create: Create, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is taken for dead commits after the other has looked."""
    create()
    parent = api.start(emit())
    run_builtins(engine, report=False)
    look, looks = PostgresTransaction.effect_of_step, []

    def too_early(*asked: Any) -> Any:
        looks.append(asked)
        return look(*asked) if len(looks) > 1 else None

    monkeypatch.setattr(PostgresTransaction, "effect_of_step", too_early)
    run_builtins(engine)
    (effect,) = effects(api, parent)
    assert emitted(api, parent)["instance_id"] == effect["provider_receipt_id"]
    assert len(api.poll("outside", limit=9)) == 1


@pytest.mark.parametrize(("scope", "flows"), [(None, 2), ("parent", 2), ("tenant", 1)])
def test_s11_emit_event_dedupes_in_its_scope(api: Api, create: Create, scope: str | None, flows: int) -> None:
    create()
    params = {"dedupe_key": "k"} if scope is None else {"dedupe_key": "k", "dedupe_scope": scope}
    twice = [emit(**params), {**emit(**params), "id": "again"}]
    parents = [api.start(*twice), api.start(*twice)]
    run_builtins(api.engine)
    rows = [row["output"] for parent in parents for row in api.outputs(parent)]
    assert len({row["instance_id"] for row in rows}) == flows
    assert [row["deduped"] for row in rows].count(False) == flows
    assert [len(effects(api, parent)) for parent in parents] == [2, 2]


@pytest.mark.parametrize(
    "params",
    [
        {"trigger_slug": "unknown"},
        {"trigger_slug": "disabled"},
        {"trigger_slug": "foreign"},
        {"trigger_slug": ""},
        {"dedupe_key": ""},
        {"dedupe_key": 7},
        {"dedupe_key": "k", "dedupe_scope": "world"},
    ],
)
def test_s11_emit_event_fails_for_good(api: Api, create: Create, params: dict[str, Any]) -> None:
    create()
    create("disabled")
    api.http.patch("/triggers/disabled", json={"enabled": False})
    other = {"X-Tenant-Id": "other"}
    document = definition(step("a"), tenant_id="other")
    api.http.post("/sequences", json=document, headers=other)
    foreign = {"slug": "foreign", "sequence_name": document["name"], "tenant_id": "other"}
    assert api.http.post("/triggers", json=foreign, headers=other).status_code == 201
    retry = {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1}
    parent = api.start({**emit(**params), "retry": retry})
    run_builtins(api.engine)
    assert (api.state(parent), effects(api, parent)) == ("failed", [])
    assert emitted(api, parent)["__error__"] is True


def test_s9_9_emit_event_in_a_dry_run_emits_nothing(api: Api, create: Create) -> None:
    create()
    parent = api.start(emit(data={"n": 1}), dry_run=True)
    run_builtins(api.engine)
    output = emitted(api, parent)
    assert (output["dry_run"], output["would"]["data"], output["deduped"]) == (True, {"n": 1}, False)
    assert effects(api, parent) == []


# -- send_signal and query_instance -------------------------------------------------------------------------------


def test_s11_a_flow_signals_and_queries_another(api: Api) -> None:
    target = api.start(step("gate", "noop", wait_for_input={}), data={"x": 1})
    ask = step("ask", "query_instance", params={"instance_id": target})
    answer = {"instance_id": target, "signal_type": {"custom": "human_input:gate"}, "payload": {"value": "yes"}}
    flow = api.start(ask, step("answer", "send_signal", params=answer))
    run_builtins(api.engine)
    before, sent = (row["output"] for row in api.outputs(flow))
    assert (before["state"], before["current_node"], before["completed_at"]) == ("waiting", "gate", None)
    assert before["context"]["data"] == {"x": 1}
    assert list(sent) == ["signal_id"]
    assert api.state(target) == "completed"
    asked_again = api.start(ask)
    run_builtins(api.engine)
    after = emitted(api, asked_again)
    assert (after["state"], after["current_node"]) == ("completed", "gate")
    assert after["context"] == api.instance(target)["context"]
    assert after["completed_at"] >= after["started_at"]


def test_s3_5_another_flow_sees_the_item_that_clients_see(api: Api):
    blocks = [{"type": "for_each", "id": "f", "collection": "items", "body": [step("a")]}]
    flow = api.start(step("first"), data={"items": ["one"]})
    assert api.http.post(f"/instances/{flow}/inject-blocks", json={"blocks": blocks}).status_code == 200
    api.complete()
    asking = api.start(step("q", "query_instance", params={"instance_id": flow}))
    run_builtins(api.engine)
    [row] = api.outputs(asking)
    assert row["output"]["context"]["data"] == {"items": ["one"], "item": "one"}
    assert row["output"]["context"] == api.instance(flow)["context"]
