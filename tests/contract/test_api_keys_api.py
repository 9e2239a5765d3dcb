"""Keys of tenants: what they open, for how long, and what is stored of them (contract, api §3, §18.2, §20.19)."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from orchestrator.api import check_configuration, create_app
from orchestrator.api.capabilities import is_admin_only, is_public
from orchestrator.api.keyring import Keyring
from orchestrator.client import AsyncClient, Client
from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError, NotAuthorized
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from tests.contract.client import CALL, TENANT
from tests.support.serving import Reception, serving
from tests.support.waiting import wait_until

ROOT = "root key of these tests"
PEPPER, OLD_PEPPER = "pepper that is long", "older pepper, long too"
ADMIN_ONLY = {"error": "forbidden: API key management requires the root API key"}
LATER = "2099-01-01T00:00:00Z"

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    """Settings of a server that asks for keys."""
    return settings.model_copy(update={"api_key": ROOT})


@pytest.fixture
def root(reception: Reception, engine: Engine, guarded: Settings) -> Iterator[httpx.Client]:
    """The administrator, who acts for the tenant `acme`."""
    url = reception.address(engine, guarded)
    with httpx.Client(base_url=url, headers={"x-api-key": ROOT, "X-Tenant-Id": TENANT}, **CALL) as client:
        yield client


@pytest.fixture
def make(root: httpx.Client) -> Make:
    """Make a key of the tenant `acme`."""

    def made(*capabilities: str, **fields: Any) -> dict[str, Any]:
        answer = root.post("/api-keys", json={"tenant_id": TENANT, "capabilities": list(capabilities), **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return made


@pytest.fixture
def stranger(root: httpx.Client) -> Iterator[httpx.Client]:
    """A client that sends no header of its own."""
    with httpx.Client(base_url=root.base_url, **CALL) as client:
        yield client


def held(key: dict[str, Any], **more: str) -> dict[str, str]:
    return {"x-api-key": key["secret"], **more}


# -- §18.2 -----------------------------------------------------------------------------------------------------------


def test_api_18_2_secret_is_shown_once(root: httpx.Client, make: Make):
    key = make("worker", "auditor", name="ci", expires_at=LATER)
    assert list(key) == ["id", "tenant_id", "name", "capabilities", "secret", "created_at", "expires_at"]
    assert re.fullmatch(r"ak_[0-9a-f]{32}", key["id"])
    assert re.fullmatch(r"sk_[0-9a-f]{64}", key["secret"])
    assert (key["tenant_id"], key["name"], key["capabilities"], key["expires_at"]) == (
        TENANT,
        "ci",
        ["worker", "auditor"],
        LATER,
    )
    listed = root.get("/api/v1/api-keys", params={"tenant_id": TENANT})
    assert listed.json() == [
        {**{name: value for name, value in key.items() if name != "secret"}, "last_used_at": None, "revoked": False}
    ]
    assert key["secret"] not in listed.text


def test_api_18_2_key_without_capabilities_is_an_operators(root: httpx.Client):
    answer = root.post("/api-keys", json={"tenant_id": TENANT})
    assert (answer.json()["capabilities"], answer.json()["name"], answer.json()["expires_at"]) == (
        ["operator"],
        "",
        None,
    )


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 422, "missing field `tenant_id`"),
        ({"tenant_id": None}, 422, "tenant_id"),
        ({"tenant_id": ""}, 400, '{"error":"invalid argument: tenant_id is required"}'),
        ({"tenant_id": " \t"}, 400, '{"error":"invalid argument: tenant_id is required"}'),
        ({"tenant_id": "other"}, 403, "does not match X-Tenant-Id header"),
        ({"tenant_id": TENANT, "capabilities": ["root"]}, 422, "capabilities"),
        ({"tenant_id": TENANT, "capabilities": ["Worker"]}, 422, "capabilities"),
        ({"tenant_id": TENANT, "capabilities": "worker"}, 422, "capabilities"),
        ({"tenant_id": TENANT, "capabilities": None}, 422, "capabilities"),
        ({"tenant_id": TENANT, "name": 7}, 422, "name"),
        ({"tenant_id": TENANT, "name": "n" * 256}, 400, "name is longer"),
        ({"tenant_id": TENANT, "name": "\0"}, 400, "u0000"),
        ({"tenant_id": TENANT, "expires_at": "soon"}, 422, "expires_at"),
        ({"tenant_id": TENANT, "expires_at": "2026-01-01T00:00:00"}, 422, "expires_at"),
        ([], 422, ""),
    ],
)
def test_api_18_2_bad_key_is_refused_and_not_stored(root: httpx.Client, body: Any, status: int, text: str):
    answer = root.post("/api-keys", json=body)
    assert (answer.status_code, text in answer.text) == (status, True), answer.text
    assert root.get("/api-keys", params={"tenant_id": TENANT}).json() == []


def test_api_18_2_list_needs_a_tenant(root: httpx.Client):
    missing = root.get("/api-keys")
    assert (missing.status_code, "missing field `tenant_id`" in missing.text) == (400, True)
    assert missing.headers["content-type"].startswith("text/plain")
    for blank in ("", "  "):
        answer = root.get("/api-keys", params={"tenant_id": blank})
        assert answer.status_code == 400
        assert answer.json() == {"error": "invalid argument: tenant_id query parameter is required"}


def test_api_18_2_revoked_key_opens_nothing_and_stays_listed(root: httpx.Client, make: Make):
    key, other = make(), make()
    assert root.get("/instances", headers=held(key)).status_code == 200
    answer = root.delete(f"/api-keys/{key['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    refused = root.get("/instances", headers=held(key))
    assert (refused.status_code, refused.content) == (401, b"")
    assert root.get("/instances", headers=held(other)).status_code == 200
    listed = root.get("/api-keys", params={"tenant_id": TENANT}).json()
    assert {each["id"]: each["revoked"] for each in listed} == {key["id"]: True, other["id"]: False}
    assert root.delete(f"/api-keys/{key['id']}").status_code == 204


@pytest.mark.parametrize("key_id", ["ak_" + "0" * 32, "none", "%00", "ü", "a" * 5000])
def test_api_18_2_unknown_key_is_404(root: httpx.Client, key_id: str):
    assert root.delete(f"/api-keys/{key_id}").status_code in ({400} if key_id == "%00" else {404})


def test_api_18_2_keys_of_another_tenant_do_not_exist(root: httpx.Client, make: Make):
    key = make()
    other = {"X-Tenant-Id": "other"}
    assert root.delete(f"/api-keys/{key['id']}", headers=other).status_code == 404
    assert root.get("/api-keys", params={"tenant_id": TENANT}, headers=other).json() == []
    assert root.get("/instances", headers=held(key)).status_code == 200


def test_api_18_2_last_use_is_written_at_most_once_a_minute(root: httpx.Client, make: Make, store: Store):
    key, unused = make(), make()

    def last_used() -> dict[str, Any]:
        listed = root.get("/api-keys", params={"tenant_id": TENANT}).json()
        return {each["id"]: each["last_used_at"] for each in listed}

    root.get("/instances", headers=held(key))
    first = last_used()
    assert first[unused["id"]] is None
    assert datetime.now(UTC) - datetime.fromisoformat(first[key["id"]]) < timedelta(minutes=1)
    root.get("/instances", headers=held(key))
    assert last_used() == first
    with store.transaction() as tx:
        tx.execute("UPDATE api_keys SET last_used_at = last_used_at - interval '61 seconds'")
    root.get("/instances", headers=held(key))
    assert last_used()[key["id"]] > first[key["id"]]


def test_a_use_that_cannot_be_written_is_nobodys_problem(root: httpx.Client, make: Make, store: Store):
    key = make()
    with store.transaction() as tx:
        tx.query("SELECT 1 FROM api_keys WHERE id = %s FOR UPDATE", (key["id"],))
        assert root.get("/instances", headers=held(key)).status_code == 200


def test_a_store_that_does_not_answer_is_503_for_keys_and_nothing_to_the_root(guarded: Settings, make: Make):
    key = make()
    store = PostgresStore("postgresql://nobody@127.0.0.1:1/nothing")
    app = create_app(Engine(store, lambda _hints: None, guarded), guarded)
    with serving(app) as url:
        answer = httpx.get(f"{url}/swagger-ui", headers=held(key), **CALL)
        assert (answer.status_code, answer.json()["error"].startswith("unavailable: ")) == (503, True)
        root = {"x-api-key": ROOT, "X-Tenant-Id": TENANT}
        assert httpx.get(f"{url}/swagger-ui", headers=root, **CALL).status_code == 200
        assert httpx.get(f"{url}/health/live", **CALL).status_code == 200


# -- §3.1 ------------------------------------------------------------------------------------------------------------


def test_api_3_1_tenant_key_names_its_tenant(stranger: httpx.Client, make: Make):
    key = make()
    assert stranger.get("/instances", headers=held(key)).status_code == 200
    assert stranger.get("/instances", headers=held(key, **{"X-Tenant-Id": TENANT})).status_code == 200
    assert stranger.get("/instances", headers=held(key, **{"X-Tenant-Id": ""})).status_code == 200
    answer = stranger.get("/instances", headers=held(key, **{"X-Tenant-Id": "other"}))
    assert (answer.status_code, answer.content) == (403, b"")
    body = {"tenant_id": "other", "session_key": "k"}
    answer = stranger.post("/sessions", json=body, headers=held(key))
    assert answer.json() == {"error": "forbidden: tenant_id in body does not match X-Tenant-Id header"}
    assert stranger.post("/sessions", json={**body, "tenant_id": TENANT}, headers=held(key)).status_code == 201


def test_api_3_1_wrong_secrets_are_401_and_empty(stranger: httpx.Client, make: Make):
    key = make()
    secret = key["secret"]
    digest = hashlib.sha256(secret.encode()).hexdigest()
    wrong = [secret[:-1], secret + "0", secret.upper(), f"sk_{'0' * 64}", f"sk_{digest}", digest, key["id"], "sk_", ""]
    for given in wrong:
        answer = stranger.get("/instances", headers={"x-api-key": given, "X-Tenant-Id": TENANT})
        assert (answer.status_code, answer.content) == (401, b""), given
    answer = stranger.get("/instances", headers={"x-api-key": "\u00fc".encode(), "X-Tenant-Id": TENANT})
    assert answer.status_code == 401


def test_api_3_1_expired_key_is_401(stranger: httpx.Client, make: Make):
    past = make(expires_at="2020-01-01T00:00:00Z")
    answer = stranger.get("/instances", headers=held(past))
    assert (answer.status_code, answer.content) == (401, b"")
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    brief = make(expires_at=soon)
    wait_until(lambda: stranger.get("/instances", headers=held(brief)).status_code == 401, lambda: "the key to expire")
    assert datetime.now(UTC) >= datetime.fromisoformat(soon)


def test_api_3_1_revocation_is_seen_by_every_process_at_once(
    root: httpx.Client, make: Make, guarded: Settings, database_url: str
):
    key = make()
    store = PostgresStore(database_url, pool_size=2)
    other_process = create_app(Engine(store, lambda _hints: None, guarded), guarded)
    with serving(other_process) as url:
        assert httpx.get(f"{url}/instances", headers=held(key), **CALL).status_code == 200
        root.delete(f"/api-keys/{key['id']}")
        assert httpx.get(f"{url}/instances", headers=held(key), **CALL).status_code == 401
    store.close()


def test_api_3_1_two_keys_live_side_by_side(stranger: httpx.Client, root: httpx.Client, make: Make):
    former, latter = make("worker"), make("worker")
    poll = {"handler_name": "outside", "worker_id": "w"}
    for key in (former, latter):
        assert stranger.post("/workers/tasks/poll", json=poll, headers=held(key)).status_code == 200
    root.delete(f"/api-keys/{former['id']}")
    statuses = [
        stranger.post("/workers/tasks/poll", json=poll, headers=held(key)).status_code for key in (former, latter)
    ]
    assert statuses == [401, 200]


@pytest.mark.parametrize("path", ["/metrics", "/swagger-ui", "/api-docs/openapi.json", "/nowhere", "/api/v1/instances"])
def test_api_3_1_whatever_is_not_public_asks_for_a_key(stranger: httpx.Client, make: Make, path: str):
    assert (stranger.get(path).status_code, stranger.get(path).content) == (401, b"")
    assert stranger.get(path, headers=held(make())).status_code == (404 if path == "/nowhere" else 200)


def test_api_3_1_public_paths(stranger: httpx.Client):
    assert [stranger.get(path).status_code for path in ("/health/live", "/info")] == [200, 200]
    assert stranger.get("/api/v1/health/live").status_code == 401
    assert is_public("POST", "/webhooks/some-hook")
    assert not is_public("GET", "/webhooks/some-hook")
    assert not is_public("POST", "/webhooks/outbox/1/redeliver")
    assert not is_public("POST", "/api/v1/webhooks/some-hook")


def test_api_3_1_server_without_a_root_key_looks_at_none(
    reception: Reception, engine: Engine, settings: Settings, make: Make
):
    key = make()
    with httpx.Client(base_url=reception.address(engine, settings), headers={"X-Tenant-Id": "other"}, **CALL) as open_:
        for headers in ({}, held(key), {"authorization": "Bearer sk_unknown"}):
            assert open_.get("/instances", headers=headers).status_code == 200
        assert open_.post("/api-keys", json={"tenant_id": "other"}).status_code == 201


# -- §20.19 ----------------------------------------------------------------------------------------------------------


def test_api_20_19_bearer_is_a_key_and_x_api_key_wins(stranger: httpx.Client, make: Make):
    key = make()
    for scheme in ("Bearer", "bearer"):
        assert stranger.get("/instances", headers={"authorization": f"{scheme} {key['secret']}"}).status_code == 200
    for header in ({"authorization": f"Basic {key['secret']}"}, {"authorization": key["secret"]}):
        assert stranger.get("/instances", headers=header).status_code == 401
    both = {"x-api-key": "wrong", "authorization": f"Bearer {key['secret']}"}
    assert stranger.get("/instances", headers=both).status_code == 401


# -- §3.2 ------------------------------------------------------------------------------------------------------------

ALLOWED = {
    "operator": {"GET /instances", "POST /workers/tasks/poll", "GET /sequences", "GET /approvals", "POST /signals"},
    "worker": {"POST /workers/tasks/poll", "GET /workers"},
    "publisher": {"GET /sequences"},
    "approver": {"GET /approvals", "POST /signals"},
    "auditor": {"GET /instances", "GET /sequences", "GET /approvals", "GET /workers", "GET /metrics"},
    "device": set(),
}
ALLOWED["operator"] |= {"GET /workers", "GET /metrics"}
ACTS = sorted(set().union(*ALLOWED.values()))
INSTANCE = "00000000-0000-4000-8000-000000000009"


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize("capability", ALLOWED)
def test_api_3_2_capabilities(stranger: httpx.Client, make: Make, capability: str, prefix: str):
    headers = held(make(capability))
    for act in ACTS:
        method, path = act.split()
        path = path.replace("/signals", f"/instances/{INSTANCE}/signals")
        if path == "/metrics" and prefix:
            continue
        body = {"json": {"handler_name": "x", "worker_id": "w"}} if method == "POST" else {}
        answer = stranger.request(method, prefix + path, headers=headers, **body)
        if act in ALLOWED[capability]:
            assert answer.status_code not in {401, 403}, act
        else:
            assert (answer.status_code, answer.content) == (403, b""), act


def test_api_3_2_auditor_may_head_and_nothing_else(stranger: httpx.Client, make: Make):
    headers = held(make("auditor"))
    assert stranger.head("/instances", headers=headers).status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert stranger.request(method, "/instances", headers=headers).status_code == 403, method


def test_api_3_2_capabilities_add_up(stranger: httpx.Client, make: Make):
    headers = held(make("worker", "publisher"))
    assert [stranger.get(path, headers=headers).status_code for path in ("/workers", "/sequences", "/approvals")] == [
        200,
        200,
        403,
    ]


ADMIN_PATHS = [
    "/api-keys",
    "/api-keys/ak_1",
    "/cluster/nodes",
    "/cluster/nodes/1/drain",
    "/webhooks/outbox",
    "/webhooks/outbox/1",
    "/webhooks/outbox/1/redeliver",
    "/webhooks/deliveries",
    "/webhooks/deliveries/1",
    "/workers/commands",
    "/workers/commands/1",
    "/workers/w1/commands",
    "/workers/version-pins",
    "/workers/version-pins/t/h",
]


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_api_3_2_admin_paths_are_the_root_keys(stranger: httpx.Client, root: httpx.Client, make: Make, path: str):
    keys = [make(), make("worker"), make("auditor"), make("device")]
    for key in keys:
        for method in ("GET", "POST", "DELETE"):
            for prefix in ("", "/api/v1"):
                answer = stranger.request(method, prefix + path, headers=held(key))
                assert (answer.status_code, answer.json()) == (403, ADMIN_ONLY), (method, prefix)
    assert root.get(path).status_code != 403
    assert stranger.get(path).status_code == 401


def test_api_3_2_names_that_only_look_like_admin_paths():
    assert [is_admin_only(path) for path in ("/webhooks/outbox-hook", "/workers/tasks", "/api-keysx", "/clusters")] == [
        False
    ] * 4


# -- §3.3 ------------------------------------------------------------------------------------------------------------


def test_api_3_3_root_key_names_its_tenant_too(stranger: httpx.Client):
    answer = stranger.post("/api-keys", json={"tenant_id": TENANT}, headers={"x-api-key": ROOT})
    assert (answer.status_code, answer.content) == (400, b"")


def test_api_3_3_tenant_key_is_scoped_although_no_header_is_required(
    reception: Reception, engine: Engine, guarded: Settings, make: Make
):
    key = make()
    lax = guarded.model_copy(update={"require_tenant_header": False})
    with httpx.Client(base_url=reception.address(engine, lax), headers={"x-api-key": ROOT}, **CALL) as root:
        root.post("/sessions", json={"tenant_id": "other", "session_key": "k"})
        assert root.get("/sessions/by-key/other/k").status_code == 200
        assert root.get("/sessions/by-key/other/k", headers=held(key)).status_code == 404
        assert root.post("/api-keys", json={"tenant_id": "third"}).status_code == 201
        assert [each["tenant_id"] for each in root.get("/api-keys", params={"tenant_id": "third"}).json()] == ["third"]


# -- what is stored --------------------------------------------------------------------------------------------------


def test_only_a_digest_is_stored(make: Make, store: Store):
    secret = make()["secret"]
    with store.transaction() as tx:
        ((digest,),) = tx.query("SELECT digest FROM api_keys")
        ((row,),) = tx.query("SELECT k::text FROM api_keys k")
    assert digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in row


def test_a_pepper_goes_into_the_digest(store: Store):
    made = Keyring(store, (PEPPER,)).new_secret()
    assert made.digest == hmac.new(PEPPER.encode(), made.secret.encode(), hashlib.sha256).hexdigest()


def test_peppers_are_rotated_with_an_overlap(make: Make, reception: Reception, engine: Engine, guarded: Settings):
    plain = make()

    def served(*peppers: str) -> httpx.Client:
        url = reception.address(engine, guarded.model_copy(update={"api_key_peppers": peppers}))
        return httpx.Client(base_url=url, headers={"x-api-key": ROOT, "X-Tenant-Id": TENANT}, **CALL)

    with served(OLD_PEPPER, "plain") as old, served(PEPPER, OLD_PEPPER) as both, served(PEPPER) as new:
        first = old.post("/api-keys", json={"tenant_id": TENANT}).json()
        second = both.post("/api-keys", json={"tenant_id": TENANT}).json()
        opened = [
            [server.get("/instances", headers=held(key)).status_code for server in (old, both, new)]
            for key in (plain, first, second)
        ]
    assert opened == [[200, 401, 401], [200, 200, 401], [401, 200, 200]]


def test_a_pepper_that_can_be_guessed_is_refused_at_start(guarded: Settings):
    check_configuration(guarded.model_copy(update={"api_key_peppers": (PEPPER, "plain")}), is_insecure=False)
    with pytest.raises(ConfigurationError, match="PEPPERS"):
        check_configuration(guarded.model_copy(update={"api_key_peppers": (PEPPER, "short")}), is_insecure=False)


# -- how often -------------------------------------------------------------------------------------------------------


def test_api_2_a_key_that_asks_too_often_is_told_so(
    reception: Reception, engine: Engine, guarded: Settings, make: Make
):
    key, other = make(), make()
    url = reception.address(engine, guarded.model_copy(update={"key_requests_per_second": 3}))
    with httpx.Client(base_url=url, **CALL) as client:
        assert [client.get("/nowhere", headers=held(key)).status_code for _ in range(3)] == [404] * 3
        refused = wait_until(lambda: _refused(client.get("/nowhere", headers=held(key))), "a request too many")
        assert refused.json() == {"error": f"rate limit exceeded: key {key['id']}"}
        assert "x-request-id" in refused.headers
        assert client.get("/nowhere", headers=held(other)).status_code == 404
        root = {"x-api-key": ROOT, "X-Tenant-Id": TENANT}
        assert {client.get("/nowhere", headers=root).status_code for _ in range(20)} == {404}
        wait_until(lambda: client.get("/nowhere", headers=held(key)).status_code == 404, lambda: "the next second")


def _refused(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.status_code == 429 else None


def test_there_is_no_limit_by_default(stranger: httpx.Client, make: Make):
    key = make()
    assert {stranger.get("/nowhere", headers=held(key)).status_code for _ in range(60)} == {404}


# -- client ----------------------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked_by_the_client(root: httpx.Client):
    url = str(root.base_url)
    with Client(url, ROOT, TENANT) as admin:
        key = admin.create_key(name="ci", capabilities=["auditor"], expires_at=datetime(2099, 1, 1, tzinfo=UTC))
        with Client(url, key.secret) as holder:
            assert holder.list().items == ()
            assert [(each.id, each.name, each.revoked) for each in admin.list_keys()] == [(key.id, "ci", False)]
            admin.revoke_key(key.id)
            with pytest.raises(NotAuthorized):
                holder.list()

    async def same() -> list[bool]:
        async with AsyncClient(url, ROOT, TENANT) as admin:
            other = await admin.create_key()
            await admin.revoke_key(other.id)
            return [each.revoked for each in await admin.list_keys()]

    assert asyncio.run(same()) == [True, True]
