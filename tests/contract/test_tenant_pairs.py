"""Whatever the API can do, done by one tenant to the things of another (contract, api §3.3).

Every operation of the routers has an entry in `ACTS`; a new one without an entry fails the first test. Each is tried by
a tenant's own key and by the root key in the name of that tenant.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from uuid import uuid4

import httpx
import pytest

from orchestrator.api.app import _PRODUCT, _ROOT
from orchestrator.api.capabilities import is_admin_only
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from tests.contract.client import CALL, Api, definition, step
from tests.support.serving import Reception

ROOT = "root key of these tests"
OWNER, STRANGER = "acme", "mallory"
MARK = "owners-own"
"""Stands in every name and value of the owner."""


class Answer(Enum):
    """What a stranger is told."""

    ABSENT = auto()
    """404, word for word as for a thing that does not exist."""
    FORBIDDEN = auto()
    """403: the body names another tenant."""
    SCOPED = auto()
    """2xx about the stranger's own things, and nothing of the owner's."""
    TAKEN = auto()
    """409: the name is taken, by whom is not said."""
    SIGNED = auto()
    """401: open to whoever can sign, of any tenant."""
    COMMON = auto()
    """2xx; says nothing of any tenant."""


@dataclass(frozen=True)
class Act:
    """One request of a stranger.

    Args:
        body: JSON; words in braces are names of the world.
    """

    answer: Answer
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)


World = dict[str, str]
ABSENT, FORBIDDEN, SCOPED = Act(Answer.ABSENT), Act(Answer.FORBIDDEN), Act(Answer.SCOPED)
COMMON, SIGNED = Act(Answer.COMMON), Act(Answer.SIGNED, {"any": 1})
OWNERS = {"tenant_id": OWNER}
LISTED = Act(Answer.SCOPED, query=OWNERS)
NAMED = {"tenant_id": OWNER, "namespace": "default", "name": "{name}"}
BY_NAME = {"namespace": "default", "name": "{name}"}
LEASE = {"worker_id": "w1", "claim_epoch": 1}
START = {"tenant_id": OWNER, "namespace": "default", "sequence_id": "{sequence}"}
OWN_START = {**START, "tenant_id": STRANGER}
DRAFT = definition(step("a"), tenant_id=OWNER, name=MARK)
FILTER = {"filter": OWNERS}
POLL = {"handler_name": "outside", "worker_id": "mallory-1"}
RATE = {"tenant_id": OWNER, "resource_key": "{rate_limit}", "max_count": 1, "window_seconds": 1}
CRON = {**START, "cron_expr": "0 0 1 1 *"}
CREDENTIAL = {"id": "{credential}", "name": "x", "kind": "api_key", "value": "x", "tenant_id": OWNER}
EVENT = {"tenant_id": OWNER, "event_name": "e", "producer_event_id": "p", "correlation_key": "c"}


def absent(body: Any = None, **query: str) -> Act:
    return Act(Answer.ABSENT, body, query)


def forbidden(body: Any) -> Act:
    return Act(Answer.FORBIDDEN, body)


def scoped(body: Any = None, **query: str) -> Act:
    return Act(Answer.SCOPED, body, query)


ACTS: dict[str, list[Act]] = {
    "GET /health/live": [COMMON],
    "GET /health/ready": [],  # 503 without service loops, as here
    "GET /info": [COMMON],
    "GET /metrics": [COMMON],
    "GET /swagger-ui": [COMMON],
    "GET /api-docs/openapi.json": [COMMON],
    "POST /webhooks/{slug}": [SIGNED],
    # sequences
    "GET /sequences/schema": [COMMON],
    "POST /sequences/dataflow": [forbidden(DRAFT)],
    "GET /sequences/{id}/dataflow": [ABSENT],
    "POST /sequences/preflight": [forbidden(DRAFT)],
    "GET /sequences/{id}/preflight": [ABSENT],
    "POST /sequences/inspect-template": [forbidden(DRAFT)],
    "POST /debug/template": [scoped({"template": "{{ data.a }}", "context": {"data": {"a": 1}}})],
    "POST /sequences/migrate-instance": [
        absent({"instance_id": "{instance}", "target_sequence_id": "{own_sequence}"}),
        forbidden({"instance_id": "{own_instance}", "target_sequence_id": "{sequence}"}),
    ],
    "POST /sequences/migrate-instances": [
        scoped({**FILTER, "target_sequence_id": "{own_sequence}"}),
        forbidden({"filter": {}, "target_sequence_id": "{sequence}"}),
    ],
    "POST /sequences": [forbidden(DRAFT)],
    "GET /sequences": [LISTED],
    "GET /sequences/by-name": [Act(Answer.ABSENT, query=NAMED), Act(Answer.ABSENT, query={**BY_NAME, **OWNERS})],
    "GET /sequences/versions": [Act(Answer.SCOPED, query=NAMED)],
    "GET /sequences/{id}": [ABSENT],
    "DELETE /sequences/{id}": [ABSENT],
    "POST /sequences/{id}/deprecate": [ABSENT],
    "POST /sequences/{id}/status": [absent({"status": "unpublished"})],
    "POST /sequences/{name}/instances": [absent({}), forbidden({"tenant_id": OWNER})],
    "GET /sequences.json": [LISTED],
    "POST /sequences/{name:path}/promote": [absent({}), forbidden(OWNERS)],
    "POST /sequences/{name:path}/unpublish": [ABSENT, absent({"delete": True}), forbidden(OWNERS)],
    # instances
    "GET /instances": [LISTED],
    "POST /instances": [
        forbidden(START),
        absent(OWN_START),
        absent({**OWN_START, "sequence_id": "{own_sequence}", "session_id": "{session}"}),
    ],
    "POST /instances/batch": [forbidden({"instances": [START]}), absent({"instances": [OWN_START]})],
    "GET /instances/dlq": [LISTED],
    "GET /instances/{id}": [ABSENT],
    "GET /instances/{id}/outputs": [ABSENT],
    "GET /instances/{id}/tree": [ABSENT],
    "GET /instances/{id}/children": [ABSENT],
    "GET /instances/{id}/effects": [ABSENT, Act(Answer.ABSENT, query=OWNERS)],
    "GET /instances/{id}/audit": [ABSENT],
    "GET /instances/{id}/timeline": [ABSENT],
    "GET /instances/{id}/attempts": [ABSENT],
    "GET /instances/{id}/stream": [ABSENT],
    "GET /instances/{id}/logs": [ABSENT],
    "GET /instances/{id}/diagnosis": [ABSENT],
    "GET /instances/{id}/remediations": [ABSENT],
    "POST /instances/{id}/remediations/{preview_id}/apply": [],  # looked up as any instance is; see test_diagnosis_api
    "GET /instances/{id}/workbench": [ABSENT],
    "GET /instances/{id}/fork-preview": [Act(Answer.ABSENT, query={"from_block_id": "a"})],
    "GET /instances/{id}/compare/{other}": [],  # both are looked up as any instance is; see test_debugging_api
    "GET /instances/dlq/groups": [LISTED],
    "POST /instances/dlq/groups/{fingerprint}/retry": [],  # names no thing of a tenant: a fingerprint is of a cause
    "PATCH /instances/bulk/state": [scoped({**FILTER, "state": "cancelled"})],
    "PATCH /instances/bulk/reschedule": [scoped({**FILTER, "offset_secs": 60})],
    "POST /instances/batch-action": [scoped({**FILTER, "action": "cancel"})],
    "PATCH /instances/{id}/state": [absent({"state": "cancelled"})],
    "PATCH /instances/{id}/context": [absent({"context": {}})],
    "POST /instances/{id}/retry": [ABSENT],
    "POST /instances/{id}/checkpoints": [absent({"checkpoint_data": 1})],
    "GET /instances/{id}/checkpoints": [ABSENT],
    "GET /instances/{id}/checkpoints/latest": [ABSENT],
    "POST /instances/{id}/checkpoints/prune": [absent({"keep": 0})],
    "POST /instances/{id}/inject-blocks": [absent({"blocks": [step("new")]})],
    "POST /instances/{id}/resume-from/{block_id:path}": [ABSENT],
    "POST /instances/{id}/fork": [absent({"from_block_id": "a"})],
    "POST /instances/{id}/signals": [absent({"signal_type": "cancel"})],
    "POST /instances/{id}/signal": [absent({"signal_type": "cancel"})],
    "GET /approvals": [LISTED],
    # sessions
    "POST /sessions": [forbidden({"tenant_id": OWNER, "session_key": "k"})],
    "GET /sessions/by-key/{tenant_id}/{session_key:path}": [ABSENT],
    "GET /sessions/{id}": [ABSENT],
    "PATCH /sessions/{id}/data": [absent({"data": 1})],
    "PATCH /sessions/{id}/state": [absent({"state": "paused"})],
    "GET /sessions/{id}/instances": [ABSENT],
    "POST /sessions/{id}/cancel": [ABSENT],
    # pools, limits, breakers
    "POST /pools": [forbidden({"tenant_id": OWNER, "name": "x"})],
    "GET /pools": [LISTED],
    "GET /pools/{id}": [ABSENT],
    "DELETE /pools/{id}": [ABSENT],
    "POST /pools/{id}/resources": [absent({"resource_key": "k", "name": "n"})],
    "GET /pools/{id}/resources": [ABSENT],
    "PUT /pools/{id}/resources/{resource_id}": [absent({"weight": 2})],
    "DELETE /pools/{id}/resources/{resource_id}": [ABSENT],
    "POST /rate-limits": [forbidden(RATE)],
    "GET /rate-limits": [LISTED],
    "GET /rate-limits/{resource_key:path}": [ABSENT, Act(Answer.ABSENT, query=OWNERS)],
    "DELETE /rate-limits/{resource_key:path}": [ABSENT, Act(Answer.ABSENT, query=OWNERS)],
    "GET /circuit-breakers": [LISTED],
    "POST /circuit-breakers": [forbidden({"tenant_id": OWNER, "handler": "{handler}"})],
    "GET /circuit-breakers/{handler}": [ABSENT, Act(Answer.ABSENT, query=OWNERS)],
    "POST /circuit-breakers/{handler}/reset": [SCOPED, LISTED],
    "GET /tenants/{tenant_id}/circuit-breakers": [ABSENT],
    "GET /tenants/{tenant_id}/circuit-breakers/{handler}": [ABSENT],
    "POST /tenants/{tenant_id}/circuit-breakers/{handler}/reset": [ABSENT],
    # triggers
    "POST /triggers": [
        forbidden({"slug": "x", "sequence_name": "{name}", "tenant_id": OWNER}),
        absent({"slug": "x", "sequence_name": "{name}", "tenant_id": STRANGER}),
    ],
    "GET /triggers": [LISTED],
    "GET /triggers/{slug}": [ABSENT],
    "PATCH /triggers/{slug}": [absent({"enabled": False})],
    "DELETE /triggers/{slug}": [ABSENT],
    "POST /triggers/{slug}/fire": [absent({})],
    # cron
    "POST /cron": [forbidden(CRON), forbidden({**CRON, "tenant_id": STRANGER})],
    "GET /cron": [LISTED],
    "GET /cron/{id}": [ABSENT],
    "PUT /cron/{id}": [absent({"enabled": False})],
    "DELETE /cron/{id}": [ABSENT],
    "GET /cron/{id}/next-fires": [ABSENT],
    # plugins, events
    "POST /plugins": [forbidden({"name": "x", "plugin_type": "wasm", "source": "x", "tenant_id": OWNER})],
    "GET /plugins": [LISTED],
    "GET /plugins/{name:path}": [ABSENT, Act(Answer.ABSENT, query=OWNERS)],
    "PATCH /plugins/{name:path}": [absent({"enabled": False}), Act(Answer.ABSENT, {"enabled": False}, OWNERS)],
    "DELETE /plugins/{name:path}": [ABSENT, Act(Answer.ABSENT, query=OWNERS)],
    "POST /events": [forbidden(EVENT)],
    "POST /events/batch": [forbidden({"events": [EVENT]})],
    "GET /events": [LISTED],
    "GET /events/{id}": [ABSENT],
    # workers
    "POST /workers/tasks/poll": [scoped(POLL)],
    "POST /workers/tasks/poll/queue": [scoped({**POLL, "queue_name": "{queue}"})],
    "POST /workers/tasks/{id}/complete": [absent({**LEASE, "output": 1})],
    "POST /workers/tasks/{id}/fail": [absent({**LEASE, "message": "x"})],
    "POST /workers/tasks/{id}/heartbeat": [absent(LEASE)],
    "GET /workers/tasks": [LISTED],
    "GET /workers/tasks/{id}/attempts": [ABSENT],
    "GET /workers/tasks/stats": [LISTED],
    "GET /workers": [SCOPED],
    "GET /handlers": [SCOPED],
    "POST /routing-rules": [forbidden({"tenant_id": OWNER, "handler_name": "x", "queue_override": "y"})],
    "GET /routing-rules": [LISTED],
    "GET /routing-rules/{id}": [ABSENT],
    "DELETE /routing-rules/{id}": [ABSENT],
    "GET /queues": [LISTED],
    "POST /queues/dispatch": [forbidden({"tenant_id": OWNER, "queue_name": "{push_queue}", "mode": "poll"})],
    "GET /queues/dispatch": [LISTED],
    "DELETE /queues/dispatch/{tenant_id}/{queue_name:path}": [ABSENT],
    "GET /changes": [LISTED],
    "GET /changes/stream": [],  # does not end; sends the rows of the list
    # credentials
    "POST /credentials": [forbidden(CREDENTIAL), Act(Answer.TAKEN, {**CREDENTIAL, "tenant_id": STRANGER})],
    "GET /credentials": [LISTED],
    "GET /credentials/{id}": [ABSENT],
    "PATCH /credentials/{id}": [absent({"enabled": False})],
    "DELETE /credentials/{id}": [ABSENT],
    "GET /usage": [Act(Answer.SCOPED, query={"tenant": OWNER, "group_by": "step"})],
    # administration: refused to tenants before it is routed; what is a tenant's is scoped for the root key as well
    "GET /webhooks/outbox": [SCOPED],
    "POST /webhooks/outbox/{id}/redeliver": [ABSENT],
    "GET /webhooks/outbox/{id}/redeliver-preview": [ABSENT],
    "DELETE /webhooks/outbox/{id}": [ABSENT],
    "GET /webhooks/deliveries": [SCOPED],
    "GET /webhooks/deliveries/{delivery_id}": [ABSENT],
    "POST /workers/commands": [],
    "DELETE /workers/commands/{id}": [],
    "GET /workers/{worker_id:path}/commands": [],
    "POST /workers/version-pins": [forbidden({"tenant_id": OWNER, "handler_name": "x", "min_version": "1"})],
    "GET /workers/version-pins": [LISTED],
    "DELETE /workers/version-pins/{tenant_id}/{handler_name:path}": [ABSENT],
    "GET /cluster/nodes": [],
    "POST /cluster/nodes/{id}/drain": [],
    "POST /api-keys": [forbidden({"tenant_id": OWNER})],
    "GET /api-keys": [LISTED],
    "DELETE /api-keys/{id}": [ABSENT],
}

IDS = {
    "sequences": "sequence",
    "instances": "instance",
    "sessions": "session",
    "cron": "schedule",
    "pools": "pool",
    "workers": "task",
    "api-keys": "api_key",
    "credentials": "credential",
    "events": "event",
    "routing-rules": "rule",
    "webhooks": "webhook",
}
PARAMETERS = {
    "tenant_id": "owner",
    "session_key": "session_key",
    "resource_id": "resource",
    "resource_key": "rate_limit",
    "handler": "handler",
    "slug": "slug",
    "name": "name",
    "block_id": "block",
    "delivery_id": "delivery",
    "queue_name": "push_queue",
    "worker_id": "task",
    "handler_name": "handler",
}
"""Names of the world for parameters of paths; `id` depends on the first segment."""


def operations() -> set[str]:
    """Every operation that the app routes, also those that its description leaves out."""
    return {
        f"{method} {route.path}"
        for router in (*_PRODUCT, *_ROOT)
        for route in router.routes
        for method in route.methods
        if method != "HEAD"
    }


def address(path: str, world: World) -> str:
    """Fill the parameters of a path."""
    first = path.split("/")[1]

    def value(found: re.Match[str]) -> str:
        name = found[1]
        return world[IDS.get(first, "task") if name == "id" else PARAMETERS[name]]

    return re.sub(r"\{(\w+)(?::path)?\}", value, path)


def filled(value: Any, world: World) -> Any:
    """Put names of the world into JSON; templates of the language stay."""
    match value:
        case str() if (name := value.strip("{}")) in world and value == "{" + name + "}":
            return world[name]
        case dict():
            return {key: filled(each, world) for key, each in value.items()}
        case list():
            return [filled(each, world) for each in value]
        case _:
            return value


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with an address that is told of ends, and cannot be reached."""
    return settings.model_copy(update={"webhook_urls": ("http://127.0.0.1:9/told",)})


@pytest.fixture
def server(reception: Reception, engine: Engine, settings: Settings) -> str:
    """A server that asks for keys."""
    return reception.address(engine, settings.model_copy(update={"api_key": ROOT}))


@pytest.fixture
def owner(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, headers={"x-api-key": ROOT, "X-Tenant-Id": OWNER}, **CALL) as client:
        yield client


@pytest.fixture
def stranger(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, headers={"x-api-key": ROOT, "X-Tenant-Id": STRANGER}, **CALL) as client:
        yield client


@pytest.fixture
def world(owner: httpx.Client, stranger: httpx.Client, engine: Engine) -> World:
    """Something of every kind that belongs to the owner, and a little of the stranger's."""
    api = Api(owner, engine)
    ids = {"owner": OWNER, "block": "a", "name": MARK, "slug": f"{MARK}-slug", "rate_limit": f"{MARK}-limit"}
    ids |= {
        "session_key": f"{MARK}-key",
        "handler": f"{MARK}-handler",
        "queue": "of-nobody",
        "push_queue": f"{MARK}-push",
    }

    def made(path: str, **body: Any) -> dict[str, Any]:
        answer = owner.post(path, json={"tenant_id": OWNER, **body})
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    gate = step("gate", "noop", wait_for_input={"prompt": MARK})
    api.start_of(api.sequence(gate, name=f"{MARK}-gate"), namespace="default")
    api.run_builtins()
    failing = api.sequence(step("a", ids["handler"]), name=f"{MARK}-failing")
    api.start_of(failing, context={"data": {"secret": MARK}})
    api.fail(MARK, handler=ids["handler"])
    [told] = owner.get("/webhooks/outbox").json()
    assert owner.post(f"/webhooks/outbox/{told['id']}/redeliver").status_code == 502
    [tried] = owner.get("/webhooks/deliveries").json()
    ids |= {"webhook": told["id"], "delivery": tried["delivery_id"]}
    api.start_of(api.sequence(step("a", queue_name=ids["queue"]), name=f"{MARK}-queued"))
    api.start_of(api.sequence(step("a"), name=f"{MARK}-model"))
    api.complete({"usage": {"input_tokens": 7, "model": MARK}})
    ids["session"] = made("/sessions", session_key=ids["session_key"], data=MARK)["id"]
    ids["sequence"] = api.sequence(step("a"), step("b"), name=MARK)
    ids["instance"] = api.start_of(
        ids["sequence"], session_id=ids["session"], context={"data": {"secret": MARK}}, metadata={"secret": MARK}
    )
    ids["task"] = api.poll(worker=f"{MARK}-worker")[0]["id"]
    owner.post(f"/instances/{ids['instance']}/checkpoints", json={"checkpoint_data": MARK})
    ids["pool"] = made("/pools", name=MARK)["id"]
    ids["resource"] = made(f"/pools/{ids['pool']}/resources", resource_key=MARK, name=MARK)["id"]
    made("/rate-limits", resource_key=ids["rate_limit"], max_count=7, window_seconds=7)
    made("/circuit-breakers", handler=ids["handler"], failure_threshold=7)
    made("/queues/dispatch", queue_name=ids["push_queue"], mode="poll")
    ids["rule"] = made("/routing-rules", handler_name=ids["handler"], queue_override=MARK)["id"]
    made("/workers/version-pins", handler_name=f"{MARK}-pinned", min_version="1")
    made("/triggers", slug=ids["slug"], sequence_name=MARK, secret=MARK)
    schedule = {"namespace": "default", "sequence_id": ids["sequence"], "cron_expr": "0 0 1 1 *", "metadata": MARK}
    ids["schedule"] = made("/cron", **schedule)["id"]
    made("/plugins", name=MARK, plugin_type="wasm", source=MARK)
    event = {"event_name": MARK, "producer_event_id": MARK, "correlation_key": MARK}
    ids["event"] = made("/events", **event)["event_id"]
    ids["credential"] = f"{MARK}-credential"
    made("/credentials", id=ids["credential"], name=MARK, kind="api_key", value=MARK)
    ids["api_key"] = made("/api-keys", name=MARK)["id"]

    theirs = Api(stranger, engine)
    body = definition(step("mine", "theirs"), tenant_id=STRANGER)
    ids["own_sequence"] = stranger.post("/sequences", json=body).json()["id"]
    ids["own_instance"] = theirs.start_of(ids["own_sequence"], tenant_id=STRANGER)
    return ids


OF_THE_OWNER = (
    "/sequences",
    "/instances",
    "/instances/{id}/outputs",
    "/instances/{id}/checkpoints",
    "/instances/{id}/audit",
    "/sessions/{id}",
    "/pools",
    "/pools/{id}/resources",
    "/rate-limits",
    "/circuit-breakers",
    "/triggers",
    "/cron",
    "/plugins",
    "/credentials",
    "/events",
    "/queues/dispatch",
    "/routing-rules",
    "/workers/version-pins",
    "/workers/tasks",
    "/approvals",
    "/webhooks/outbox",
    "/webhooks/deliveries",
    f"/api-keys?tenant_id={OWNER}",
    "/usage?group_by=step&start=2026-01-01T00:00:00Z&end=2099-01-01T00:00:00Z",
)


def what_the_owner_sees(owner: httpx.Client, world: World) -> list[Any]:
    """Read everything of the owner's."""
    answers = [owner.get(address(path, world)) for path in OF_THE_OWNER]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    nameless = re.compile("/outputs|/audit|/deliveries")
    assert all(MARK in answer.text for answer in answers if nameless.search(answer.url.path) is None)
    return [answer.json() for answer in answers]


def complaint(call: Callable[..., httpx.Response], method: str, path: str, act: Act, world: World) -> str | None:
    """Say what is wrong with the answer to a stranger; None if it is as it should be."""
    options = {"params": filled(act.query, world)} | ({} if act.body is None else {"json": filled(act.body, world)})
    answer = call(method, address(path, world), **options)
    told = f"{answer.status_code} {answer.text[:200]}"
    match act.answer:
        case Answer.ABSENT:
            unknown = {name: each if name == "owner" else _unlike(each) for name, each in world.items()}
            other = call(method, address(path, unknown), **options)
            as_unknown = dict(zip(world.values(), unknown.values(), strict=True))
            longest_first = sorted(as_unknown.keys() - {"a"}, key=len, reverse=True)
            said = re.sub("|".join(map(re.escape, longest_first)), lambda found: as_unknown[found[0]], answer.text)
            if answer.status_code != 404:
                return told
            is_the_same = "{" not in path or path.endswith("/instances") or said == other.text or said == answer.text
            return None if is_the_same else f"{told}, but of an unknown one {other.text[:200]}"
        case Answer.FORBIDDEN:
            return None if answer.status_code == 403 and "error" in answer.json() else told
        case Answer.TAKEN:
            return None if answer.status_code == 409 and OWNER not in answer.text else told
        case Answer.SIGNED:
            return None if answer.status_code == 401 else told
        case Answer.SCOPED | Answer.COMMON:
            is_clean = MARK not in answer.text and not any(world[name] in answer.text for name in IDS.values())
            return None if answer.is_success and (is_clean or act.answer is Answer.COMMON) else told


def _unlike(name: str) -> str:
    """Give a name of the same form that nobody has."""
    return str(uuid4()) if re.fullmatch(r"[0-9a-f-]{36}", name) else f"no-{name}"


def test_every_operation_has_an_entry():
    assert operations() - ACTS.keys() == set(), "say in ACTS what a stranger is told there"
    assert ACTS.keys() - operations() == set()


def test_an_operation_without_an_entry_would_be_noticed():
    assert "POST /instances/{id}/signal" in operations()
    assert len(operations()) > 90


def test_api_3_3_strangers_find_nothing(owner: httpx.Client, stranger: httpx.Client, server: str, world: World):
    before = what_the_owner_sees(owner, world)
    secret = stranger.post("/api-keys", json={"tenant_id": STRANGER}).json()["secret"]
    wrong = []
    with httpx.Client(base_url=server, headers={"x-api-key": secret}, **CALL) as holder:
        for operation, acts in ACTS.items():
            method, path = operation.split()
            for act in acts:
                for who, client in (("root", stranger), ("key", holder)):
                    if who == "key" and is_admin_only(path):
                        continue
                    fault = complaint(client.request, method, path, act, world)
                    wrong += [f"{who} {operation}: {fault}"] if fault else []
            if is_admin_only(path) and holder.request(method, address(path, world)).status_code != 403:
                wrong.append(f"key {operation}: not refused")
    assert wrong == []
    assert what_the_owner_sees(owner, world) == before


def test_what_a_stranger_could_read_would_be_noticed(owner: httpx.Client, world: World):
    for path, act in (("/sessions/{id}", ABSENT), ("/triggers", LISTED), ("/instances/{id}/tree", SCOPED)):
        assert complaint(owner.request, "GET", path, act, world), path


# -- row-level security: what stands behind the queries --------------------------------------------------------------

WHATEVER_THE_TENANT = {
    "Keyring.find": "whose key it is, is what is asked",
    "Keyring._write_use": "of the key itself",
    "info": "the version of the schema",
    "KnownHandlers._read": "handlers of our own workers, which serve all",
    "_StoreMetrics._look": "of the whole installation",
}
"""Transactions of the engine's account that an operation that only reads may open, by who opens them."""
READS = [operation for operation in ACTS if operation.startswith("GET ") and not is_admin_only(operation.split()[1])]


@pytest.fixture
def openers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who has opened transactions of the engine's own account, of those that serve a request."""
    found: list[str] = []
    open_one = PostgresStore.transaction

    def transaction(self: PostgresStore, *, is_losable: bool = False, is_single: bool = False) -> Any:
        found.append(sys._getframe(1).f_code.co_qualname)
        return open_one(self, is_losable=is_losable, is_single=is_single)

    monkeypatch.setattr(PostgresStore, "transaction", transaction)
    return found


def test_whatever_reads_for_a_tenant_takes_its_role(
    owner: httpx.Client, server: str, world: World, store: PostgresStore, openers: list[str]
):
    assert store.row_security.role(store.transaction) is not None
    secret = owner.post("/api-keys", json={"tenant_id": OWNER}).json()["secret"]
    wrong: dict[str, set[str]] = {}
    with httpx.Client(base_url=server, headers={"x-api-key": secret}, **CALL) as holder:
        for operation in READS:
            for act in ACTS[operation]:
                openers.clear()
                method, path = operation.split()
                with holder.stream(method, address(path, world), params=filled(act.query, world)) as answer:
                    next(answer.iter_raw(), None)
                if others := set(openers) - WHATEVER_THE_TENANT.keys():
                    wrong[operation] = others
    assert wrong == {}


def test_where_queries_let_everything_through_the_server_still_shows_nothing(
    owner: httpx.Client, world: World, monkeypatch: pytest.MonkeyPatch
):
    """The owner asks, so all conditions of the queries hold; but what is read is read in the role of the stranger."""
    read_for = PostgresStore.reading

    def reading(self: PostgresStore, tenant: str | None, **options: Any) -> Any:
        return read_for(self, STRANGER if tenant == OWNER else tenant, **options)

    monkeypatch.setattr(PostgresStore, "reading", reading)
    shown = []
    for operation in READS:
        method, path = operation.split()
        for act in ACTS[operation]:
            answer = owner.request(method, address(path, world), params=filled(act.query, world))
            if MARK in re.sub(r'"error":"[^"]*"', "", answer.text) or answer.status_code >= 500:
                shown.append(f"{operation}: {answer.status_code} {answer.text[:200]}")
    assert shown == []
