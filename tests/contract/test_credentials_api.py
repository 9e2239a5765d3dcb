"""Credentials over HTTP, and in the params of tasks (contract, api §18.1; sequences §12)."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from orchestrator.api.reporting import MAX_MESSAGE_CHARACTERS
from orchestrator.credential_use import CredentialUse
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.exchange import Wish
from orchestrator.renewal import Renewer
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.serving import Reception
from tests.support.token_server import TokenServer, token_server
from tests.support.waiting import wait_until

FOREIGN = {"X-Tenant-Id": "other"}
SECRET = "s3cr3t-value"
URL = "https://login.example.invalid/token"
TOO_MUCH = "x" * 262_145
RETRY = {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1}


def made(api: Api, credential_id: str = "mail", **fields):
    answer = api.http.post(
        "/credentials", json={"id": credential_id, "name": "Mail", "kind": "api_key", "value": SECRET, **fields}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def instant(**later: float) -> str:
    return (datetime.now(UTC) + timedelta(**later)).isoformat()


@pytest.fixture
def inside(engine: Engine, settings: Settings, reception: Reception) -> Iterator[Api]:
    """A server that may call private addresses."""
    url = reception.address(engine, settings.model_copy(update={"allow_internal_urls": True}))
    with httpx.Client(base_url=f"{url}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as http:
        yield Api(http, engine)


@pytest.fixture
def provider() -> Iterator[TokenServer]:
    with token_server() as server:
        yield server


# -- §18.1 -----------------------------------------------------------------------------------------------------------


def test_api_18_1_credential_is_stored_and_its_secrets_are_never_shown(api: Api):
    later = "2099-01-01T00:00:00Z"
    fields = {"refresh_url": URL, "refresh_token": "r3fresh", "description": "for mail", "expires_at": later}
    credential = made(api, kind="oauth2", **fields)
    assert {name: credential[name] for name in ("id", "tenant_id", "name", "kind", "enabled", "expires_at")} == {
        "id": "mail",
        "tenant_id": TENANT,
        "name": "Mail",
        "kind": "oauth2",
        "enabled": True,
        "expires_at": later,
    }
    assert (credential["refresh_url"], credential["has_refresh_token"], credential["description"]) == (
        URL,
        True,
        "for mail",
    )
    answers = [api.http.get("/credentials/mail"), api.http.get("/credentials")]
    assert answers[0].json() == credential
    assert answers[1].json() == [credential]
    assert not any(secret in answer.text for answer in answers for secret in (SECRET, "r3fresh"))
    plain = made(api, "plain")
    assert plain["has_refresh_token"] is False
    assert not {"expires_at", "refresh_url", "description", "value", "refresh_token"} & plain.keys()
    assert [each["id"] for each in api.http.get("/credentials?limit=1").json()] == ["mail"]


def test_api_18_1_id_is_unique_over_all_tenants(api: Api):
    made(api)
    body = {"id": "mail", "name": "n", "kind": "basic", "value": "v"}
    for headers in ({}, FOREIGN):
        answer = api.http.post("/credentials", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (409, "already exists: credential mail")
    assert api.http.get("/credentials", headers=FOREIGN).json() == []
    assert api.http.get(f"/credentials?tenant_id={TENANT}", headers=FOREIGN).json() == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"id": ""}, 400),
        ({"id": "a b"}, 400),
        ({"id": "ä"}, 400),
        ({"id": "x" * 256}, 400),
        ({"id": "x\n"}, 400),
        ({"name": " "}, 400),
        ({"value": ""}, 400),
        ({"value": "enc:v1:AAAA"}, 400),
        ({"refresh_token": "enc:v2:AAAA"}, 400),
        ({"kind": "oauth2", "refresh_url": URL}, 400),
        ({"kind": "oauth2", "refresh_url": URL, "refresh_token": ""}, 400),
        ({"refresh_url": "ftp://example.com/", "refresh_token": "t"}, 400),
        ({"refresh_url": "", "refresh_token": "t"}, 400),
        ({"refresh_url": "http://127.0.0.1/token", "refresh_token": "t"}, 400),
        ({"refresh_url": "http://169.254.169.254/", "refresh_token": "t"}, 400),
        ({"refresh_url": "http://[::1]/", "refresh_token": "t"}, 400),
        ({"refresh_url": "http://2130706433/", "refresh_token": "t"}, 400),
        ({"refresh_url": "http://localhost/", "refresh_token": "t"}, 400),
        ({"refresh_url": "https://me:pw@example.invalid/", "refresh_token": "t"}, 400),
        ({"value": TOO_MUCH}, 413),
        ({"description": TOO_MUCH}, 413),
        ({"value": "x" * 200_000, "refresh_token": "t" * 100_000}, 413),
        ({"tenant_id": "other"}, 403),
        ({"kind": "password"}, 422),
        ({"value": 7}, 422),
        ({"value": None}, 422),
        ({"expires_at": "soon"}, 422),
    ],
)
def test_api_18_1_credential_is_refused_and_nothing_is_stored(api: Api, fields, status: int):
    body = {"id": "mail", "name": "Mail", "kind": "api_key", "value": SECRET, **fields}
    answer = api.http.post("/credentials", json=body)
    assert answer.status_code == status, answer.text
    assert SECRET not in answer.text
    assert api.http.get("/credentials").json() == []


@pytest.mark.parametrize("missing", ["id", "name", "kind", "value"])
def test_api_18_1_missing_member_is_422(api: Api, missing: str):
    body = {"id": "mail", "name": "Mail", "kind": "api_key", "value": SECRET}
    del body[missing]
    assert api.http.post("/credentials", json=body).status_code == 422


def test_api_18_1_secret_of_exactly_the_limit_is_stored_whatever_the_name(api: Api):
    made(api, name="n" * 255, value=TOO_MUCH[1:])
    assert api.http.patch("/credentials/mail", json={"value": "y" * 262_144, "description": "d"}).status_code == 200


def test_api_18_1_blank_tenant_is_that_of_the_caller(api: Api):
    assert made(api, (uuid4().hex * 8)[:255], tenant_id="", value="x" * 200_000)["tenant_id"] == TENANT
    assert made(api, "a.B-_9", tenant_id=TENANT)["tenant_id"] == TENANT


def test_api_18_1_members_change_and_the_rest_stays(api: Api):
    before = made(api, kind="oauth2", refresh_url=URL, refresh_token="t", description="d")
    changed = api.http.patch("/credentials/mail", json={"enabled": False, "description": None, "name": None, "id": "x"})
    assert changed.status_code == 200
    expected = {**before, "enabled": False, "updated_at": changed.json()["updated_at"]}
    del expected["description"]
    assert changed.json() == expected == api.http.get("/credentials/mail").json()
    assert changed.json()["updated_at"] > before["updated_at"]
    for body in ({"value": ""}, {"name": ""}, {"refresh_token": None}, {"refresh_url": "http://10.0.0.1/"}):
        assert api.http.patch("/credentials/mail", json=body).status_code == 400, body
    assert api.http.patch("/credentials/mail", json={"kind": "none"}).status_code == 422
    assert api.http.patch("/credentials/mail", json={"value": TOO_MUCH}).status_code == 413
    without = api.http.patch("/credentials/mail", json={"refresh_token": None, "refresh_url": None, "kind": "basic"})
    assert (without.json()["has_refresh_token"], without.json()["kind"]) == (False, "basic")


def test_api_18_1_unknown_and_foreign_credentials_are_404(api: Api):
    made(api)
    for name, headers in (("none", {}), ("mail", FOREIGN)):
        answers = [
            api.http.get(f"/credentials/{name}", headers=headers),
            api.http.patch(f"/credentials/{name}", json={"enabled": False}, headers=headers),
            api.http.delete(f"/credentials/{name}", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [404] * 3
        assert answers[0].json() == {"error": f"not found: credential {name}"}
    assert api.http.get("/credentials/mail").json()["enabled"] is True
    assert [api.http.delete("/credentials/mail").status_code for _ in range(2)] == [204, 404]


# -- use in steps (sequences §12) ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "reference", "given"),
    [
        ("plain text", "credentials://mail", "plain text"),
        ('{"user": "u", "n": {"deep": [1]}}', "credentials://mail", {"user": "u", "n": {"deep": [1]}}),
        ('{"user": "u", "n": {"deep": [1]}}', "credentials://mail/user", "u"),
        ('{"user": "u", "n": {"deep": [1]}}', "credentials://mail/n", {"deep": [1]}),
        ('{"a/b": 1}', "credentials://mail/a/b", 1),
        ("12", "credentials://mail", 12),
        ('"quoted"', "credentials://mail", "quoted"),
        ("[" * 100 + "]" * 100, "credentials://mail", "[" * 100 + "]" * 100),
        ("secret", " credentials://mail", " credentials://mail"),
        ("secret", "Bearer credentials://mail", "Bearer credentials://mail"),
        ("secret", "credentials://", "credentials://"),
        ("secret", "credentials://no good", "credentials://no good"),
    ],
)
def test_s12_reference_becomes_the_stored_value(api: Api, stored: str, reference: str, given):
    made(api, value=stored)
    api.start(step("a", params={"auth": {"all": [reference]}, "other": 1}))
    (task,) = api.poll()
    assert task["params"] == {"auth": {"all": [given]}, "other": 1}


@pytest.mark.needs_own_server("its credential is named by a template")
def test_s12_reference_may_come_out_of_a_template(api: Api):
    made(api)
    api.start(step("a", params={"auth": "credentials://{{ data.which }}"}), data={"which": "mail"})
    assert api.poll()[0]["params"] == {"auth": SECRET}


def test_s12_secret_is_in_no_list_of_tasks_and_no_row(api: Api):
    made(api, value=f'{{"key": "{SECRET}"}}')
    instance = api.start(step("a", params={"auth": "credentials://mail/key"}))
    listed = api.http.get("/workers/tasks").text
    assert "credentials://mail/key" in listed
    (task,) = api.poll()
    assert task["params"] == {"auth": SECRET}
    assert SECRET not in api.http.get("/workers/tasks").text
    assert SECRET not in api.http.get(f"/workers/tasks/{task['id']}").text
    said = {"said": f"no entry for {SECRET}", f"x{SECRET}": [SECRET]}
    logs = [{"ts": 1, "level": "info", "message": f"sent {SECRET}"}, SECRET]
    assert api.report(task, "fail", message=f"bad key {SECRET}", details=said, logs=logs).status_code == 200
    seen = [
        api.http.get(path).text
        for path in (
            f"/instances/{instance}",
            f"/instances/{instance}/outputs",
            f"/instances/{instance}/tree",
            f"/instances/{instance}/audit",
            f"/instances/{instance}/attempts",
            f"/instances/{instance}/logs",
            "/workers/tasks",
        )
    ]
    assert not any(SECRET in text for text in seen)
    for said_of_it in ("bad key [REDACTED]", "sent [REDACTED]"):
        assert any(said_of_it in text for text in seen)


def test_s12_no_half_of_a_secret_is_left_where_a_message_is_cut(api: Api):
    made(api)
    for kept in (4, 7, len(SECRET) - 1, len(SECRET)):
        instance = api.start(step("a", params={"auth": "credentials://mail"}))
        (task,) = api.poll()
        message = "x" * (MAX_MESSAGE_CHARACTERS - kept) + SECRET
        assert api.report(task, "fail", message=message).status_code == 200
        told = api.http.get(f"/instances/{instance}/attempts").text
        assert told.count("x") >= 4000
        assert f"x{SECRET[:4]}" not in told


@pytest.mark.parametrize(
    ("fields", "reference", "message"),
    [
        ({}, "credentials://none", "credential 'none' is not known"),
        ({}, "credentials://mail/user", "credential 'mail' has no field 'user'"),
        ({"value": '{"a": 1}'}, "credentials://mail/b", "credential 'mail' has no field 'b'"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "credentials://mail", "credential 'mail' has expired"),
    ],
)
def test_s12_what_cannot_be_had_fails_the_step_for_good(api: Api, fields, reference: str, message: str):
    made(api, **fields)
    instance = api.start(step("a", params={"auth": reference}, retry=RETRY))
    assert api.poll() == []
    assert api.state(instance) == "failed"
    assert message in api.http.get(f"/instances/{instance}/attempts").text


def test_s12_disabled_and_foreign_credentials_are_refused(api: Api):
    made(api)
    made(api, "off")
    api.http.patch("/credentials/off", json={"enabled": False})
    theirs = {"id": "theirs", "name": "n", "kind": "basic", "value": SECRET, "tenant_id": "other"}
    assert api.http.post("/credentials", json=theirs, headers=FOREIGN).status_code == 201
    for name, why in (("off", "is disabled"), ("theirs", "is not known")):
        instance = api.start(step("a", params={"auth": f"credentials://{name}"}))
        assert api.poll() == []
        assert f"credential '{name}' {why}" in api.http.get(f"/instances/{instance}/attempts").text


# -- renewal ---------------------------------------------------------------------------------------------------------


def renewable(api: Api, provider: TokenServer, **fields):
    made(
        api,
        **{
            "kind": "oauth2",
            "value": "token-0",
            "refresh_url": provider.url,
            "refresh_token": "first",
            "expires_at": instant(seconds=-5),
            **fields,
        },
    )


def test_api_18_1_expired_token_is_renewed_when_it_is_used(inside: Api, provider: TokenServer):
    renewable(inside, provider)
    provider.answer = {"expires_in": "3600", "refresh_token": "second"}
    inside.start(step("a", params={"auth": "credentials://mail"}))
    assert inside.poll()[0]["params"] == {"auth": "token-1"}
    assert provider.forms == [{"grant_type": "refresh_token", "refresh_token": "first"}]
    shown = inside.http.get("/credentials/mail").json()
    assert instant(minutes=50) < shown["expires_at"] < instant(minutes=70)
    inside.start(step("a", params={"auth": "credentials://mail"}))
    assert inside.poll()[0]["params"] == {"auth": "token-1"}
    inside.http.patch("/credentials/mail", json={"expires_at": instant(seconds=-5)})
    inside.start(step("a", params={"auth": "credentials://mail"}))
    assert inside.poll()[0]["params"] == {"auth": "token-2"}
    assert provider.forms[1]["refresh_token"] == "second"


def test_api_18_1_new_token_takes_its_place_in_an_object(inside: Api, provider: TokenServer):
    renewable(inside, provider, value='{"access_token": "token-0", "client_id": "me", "client_secret": "cs"}')
    inside.start(step("a", params={"auth": "credentials://mail/access_token"}))
    assert inside.poll()[0]["params"] == {"auth": "token-1"}
    assert (provider.forms[0]["client_id"], provider.forms[0]["client_secret"]) == ("me", "cs")


def test_api_18_1_provider_that_is_down_is_a_retryable_failure(inside: Api, provider: TokenServer):
    renewable(inside, provider)
    provider.status = 503
    instance = inside.start(step("a", params={"auth": "credentials://mail"}, retry=RETRY))
    assert inside.poll() == []
    assert inside.state(instance) == "scheduled"
    provider.status = 200
    inside.pass_time()
    assert inside.poll()[0]["params"] == {"auth": "token-2"}


def test_api_18_1_refused_renewal_is_permanent_and_a_good_token_is_used_meanwhile(inside: Api, provider: TokenServer):
    renewable(inside, provider, expires_at=instant(seconds=20))
    provider.status = 400
    inside.start(step("a", params={"auth": "credentials://mail"}))
    assert inside.poll()[0]["params"] == {"auth": "token-0"}
    assert len(provider.forms) == 1
    inside.http.patch("/credentials/mail", json={"expires_at": instant(seconds=-5)})
    instance = inside.start(step("b", params={"auth": "credentials://mail"}, retry=RETRY))
    assert inside.poll() == []
    assert inside.state(instance) == "failed"
    assert "could not be renewed: HTTP 400" in inside.http.get(f"/instances/{instance}/attempts").text


def test_api_18_1_private_address_is_refused_at_use(inside: Api, provider: TokenServer, engine: Engine):
    renewable(inside, provider)
    instance = inside.start(step("a", handler="noop", params={"auth": "credentials://mail"}))
    worker = Worker(id=uuid4(), name="in-process")
    (work,) = engine.inputs(engine.claim(worker, Wish(queue="default", handlers=["noop"])))
    strict = CredentialUse(engine.store, Renewer(engine.store, Egress()))
    filled = strict.filled(work)
    assert str(work.instance.id) == instance
    assert filled.failure is not None
    assert (filled.failure.retryable, filled.params) == (False, {"auth": "credentials://mail"})
    assert "blocked" in filled.failure.message
    assert provider.forms == []


def polled(api: Api, worker: str):
    """Ask for one task until there is one: polls at the same moment may pass one another's tasks over."""
    return wait_until(lambda: api.poll(worker=worker, limit=1), "a task")


def test_api_18_1_one_process_renews_while_the_others_wait(inside: Api, provider: TokenServer):
    renewable(inside, provider)
    provider.gate.clear()
    for _ in range(4):
        inside.start(step("a", params={"auth": "credentials://mail"}))
    with ThreadPoolExecutor(4) as threads:
        polls = [threads.submit(polled, inside, f"w{number}") for number in range(4)]
        assert provider.asked.wait(60)
        threading.Timer(0.3, provider.gate.set).start()
        tasks = [task for poll in polls for task in poll.result(60)]
    assert [task["params"] for task in tasks] == [{"auth": "token-1"}] * 4
    assert len(provider.forms) == 1


def test_api_18_1_loop_renews_before_a_step_has_to_wait(inside: Api, provider: TokenServer, engine: Engine):
    renewable(inside, provider, expires_at=instant(seconds=50))
    made(inside, "later", kind="oauth2", refresh_url=provider.url, refresh_token="t", expires_at=instant(hours=1))
    made(inside, "off", kind="oauth2", refresh_url=provider.url, refresh_token="t", expires_at=instant(seconds=1))
    inside.http.patch("/credentials/off", json={"enabled": False})
    loop = Renewer(engine.store, Egress(allow_internal=True))
    provider.status = 500
    assert loop.tick().done == 0
    provider.status = 200
    assert [loop.tick().done for _ in range(2)] == [1, 0]
    assert len(provider.forms) == 2
    inside.start(step("a", params={"auth": "credentials://mail"}))
    assert inside.poll()[0]["params"] == {"auth": "token-2"}


def test_api_18_1_change_during_a_renewal_wins(inside: Api, provider: TokenServer):
    renewable(inside, provider)
    provider.gate.clear()
    inside.start(step("a", params={"auth": "credentials://mail"}))
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(inside.poll)
        assert provider.asked.wait(60)
        changed = {"value": "by hand", "expires_at": instant(hours=1)}
        assert inside.http.patch("/credentials/mail", json=changed).status_code == 200
        provider.gate.set()
        assert poll.result(60)[0]["params"] == {"auth": "by hand"}
