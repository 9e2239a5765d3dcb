"""The ready sequences as a user has them: posted over HTTP as they stand, and run by a real worker.

Models and gRPC services are out of reach here: `react_agent`, `self_planning` and `quote` are posted as they stand and
played in a next version that asks handlers of the tests instead. Where days stand in the way, the flow must stand at
the right moment.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from orchestrator import embedded
from sequences import library
from sequences.shorthand import is_shorthand
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

TENANT = "demo"
SERVICES = {
    "llm_call": "model",
    "grpc://pricing.internal:50051/pricing.Pricing.Quote": "price_service",
    "grpc://stock.internal:50052/stock.Stock.Check": "stock_service",
}
NAMES = tuple(name for name in library.names() if name != "library_index")
AT_ONCE = {
    "payment_failover": "record",
    "notify_all": "record",
    "react_agent": "save",
    "invoice_batch": "summary",
    "process_invoice": "post",
    "partner_sync": "metrics",
    "lead_intake": "slack",
    "self_planning": "synthesize",
    "quote": "offer",
    "payment_failed": "start_dunning",
    "ab_onboarding": "track",
    "observed": "_interceptor:on_complete",
    "least_privilege": "internal",
    "routed_work": "archive",
    "fulfilment": "ship",
    "fulfilment_v1": "ship",
    "data_migration": "report",
}
"""Those that need nobody and no time, with the block whose row is the last."""

ANSWERED = {
    "deploy": ("approve", {"value": "approved"}, "tell_team"),
    "verify_email": ("confirm", {"value": "yes"}, "share"),
    "research_agent": ("human_review", {"approved": True}, "publish_report"),
    "support_agent": ("request_human_review", {"approved": True}, "send_response"),
}
"""Those that wait for a person: the gate, the answer, the block whose row is the last."""

STANDING = {"dunning": ("charge_2", timedelta(days=3)), "onboarding": ("getting_started", timedelta(hours=1))}
"""Those that wait for a moment: the step, and how long after the start."""

IN_OFFICE_HOURS = {"outreach": "send_first", "office_hours": "first", "warm_send": "send"}
"""Those that wait for the office to open; the test starts them where it is night or Sunday."""


@pytest.fixture(scope="module")
def stack(
    servers: embedded.Servers, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One worker on every queue the documents name, and an API."""
    workers = {"worker": WorkerSpec(queues=("default", "gpu", "eu-west"), concurrency=2)}
    with Stack.running(
        tmp_path_factory.mktemp("library"),
        servers=servers,
        template=migrated_template,
        workers=workers,
        with_api=True,
        imports="tests.support.library_handlers",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the tenant the documents belong to."""
    headers = {"X-Tenant-Id": TENANT}
    with httpx.Client(base_url=f"{stack.api_url}/api/v1", headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def posted(http: httpx.Client) -> dict[str, str]:
    """The ids of the sequences to start, by the name of the document."""
    ids = {name: _post(http, library.load(name)) for name in NAMES}
    for name in ("react_agent", "self_planning", "quote"):
        ids[name] = _post(http, _played(library.load(name)))
    trigger = {"slug": "dunning-start", "sequence_name": "dunning", "tenant_id": TENANT, "namespace": "default"}
    answer = http.post("/triggers", json={**trigger, "trigger_type": "event"})
    assert answer.status_code == 201, answer.text
    return ids


def _post(http: httpx.Client, document: dict[str, Any]) -> str:
    answer = http.post("/sequences", json=document)
    assert answer.status_code == 201, f"{document['id']}: {answer.text}"
    stored: str = answer.json()["id"]
    return stored


def _played(document: dict[str, Any]) -> dict[str, Any]:
    """The next version of a document, with handlers of the tests for what lies outside."""
    blocks = [_replaced(block) for block in document["blocks"]]
    return {**document, "id": f"{document['id'][:-3]}9{document['id'][-2:]}", "version": 2, "blocks": blocks}


def _replaced(value: Any) -> Any:
    match value:
        case {"handler": handler, **rest} if handler in SERVICES:
            return {"handler": SERVICES[handler], **_replaced(rest)}
        case dict():
            return {key: _replaced(item) for key, item in value.items()}
        case list():
            return [_replaced(item) for item in value]
        case _:
            return value


def _start(http: httpx.Client, posted: dict[str, str], name: str, **members: Any) -> str:
    body = {
        "sequence_id": posted[name],
        "tenant_id": TENANT,
        "namespace": "default",
        "context": {"data": library.example_input(name)},
        **members,
    }
    answer = http.post("/instances", json=body)
    assert answer.status_code == 201, answer.text
    started: str = answer.json()["id"]
    return started


def _instance(http: httpx.Client, instance_id: str) -> dict[str, Any]:
    read: dict[str, Any] = http.get(f"/instances/{instance_id}").json()
    return read


def _wait_for(stack: Stack, http: httpx.Client, instance_id: str, state: str, name: str) -> dict[str, Any]:
    def has_come() -> dict[str, Any]:
        instance = _instance(http, instance_id)
        return instance if instance["state"] == state else {}

    def what() -> str:
        return f"{name} to be {state}, but it is {_instance(http, instance_id)}\n{stack.log_tail()}"

    return wait_until(has_come, what)


def _rows(http: httpx.Client, instance_id: str) -> list[str]:
    return [row["block_id"] for row in http.get(f"/instances/{instance_id}/outputs").json()]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _where_it_is_night() -> str:
    """A zone in which it is shortly after midnight. The sign of these zones is that of POSIX: west is plus."""
    hour = datetime.now(UTC).hour
    return f"Etc/GMT{hour:+d}" if hour <= 12 else f"Etc/GMT{hour - 24:+d}"


def test_every_document_is_driven_here() -> None:
    assert {*AT_ONCE, *ANSWERED, *STANDING, *IN_OFFICE_HOURS} == set(NAMES)
    assert len(NAMES) == len(set(NAMES)) == 26


def test_the_agents_are_posted_in_shorthand_and_stored_in_full(http: httpx.Client, posted: dict[str, str]) -> None:
    for name in NAMES:
        if is_shorthand(library.load(name)):
            stored = http.get(f"/sequences/{posted[name]}").json()
            assert (stored["name"], stored["version"], stored["tenant_id"]) == (name, 1, TENANT)


def test_what_needs_nobody_runs_to_its_end(stack: Stack, http: httpx.Client, posted: dict[str, str]) -> None:
    started = {name: _start(http, posted, name) for name in AT_ONCE}
    for name, instance_id in started.items():
        _wait_for(stack, http, instance_id, "completed", name)
        assert _rows(http, instance_id)[-1] == AT_ONCE[name]


def test_a_plan_becomes_part_of_the_flow_that_made_it(stack: Stack, http: httpx.Client, posted: dict[str, str]) -> None:
    instance_id = _start(http, posted, "self_planning")
    _wait_for(stack, http, instance_id, "completed", "self_planning")
    assert _rows(http, instance_id) == ["plan", "extend", "rows", "columns", "synthesize"]


def test_an_invoice_batch_quarantines_the_bad_invoice(stack: Stack, http: httpx.Client, posted: dict[str, str]) -> None:
    instance_id = _start(http, posted, "invoice_batch")
    _wait_for(stack, http, instance_id, "completed", "invoice_batch")
    assert _rows(http, instance_id).count("quarantine") == 1
    listed = http.get("/instances", params={"tenant_id": TENANT, "limit": 200}).json()
    found = listed if isinstance(listed, list) else listed["items"]
    states = sorted(each["state"] for each in found if each["parent_instance_id"] == instance_id)
    assert states == ["completed", "completed", "failed"]


def test_a_payment_that_failed_starts_its_dunning_once(
    stack: Stack, http: httpx.Client, posted: dict[str, str]
) -> None:
    outputs = []
    for _ in range(2):
        instance_id = _start(http, posted, "payment_failed")
        _wait_for(stack, http, instance_id, "completed", "payment_failed")
        rows = http.get(f"/instances/{instance_id}/outputs").json()
        outputs.append(next(row["output"] for row in rows if row["block_id"] == "start_dunning"))
    assert outputs[0]["instance_id"] == outputs[1]["instance_id"]
    assert _instance(http, outputs[0]["instance_id"])["sequence_id"] == posted["dunning"]


@pytest.mark.parametrize("name", ANSWERED)
def test_what_waits_for_a_person_goes_on_with_the_answer(
    stack: Stack, http: httpx.Client, posted: dict[str, str], name: str
) -> None:
    gate, payload, last = ANSWERED[name]
    members: dict[str, Any] = {}
    if name == "verify_email":
        session = {"tenant_id": TENANT, "session_key": "user:42", "data": {"locale": "de"}}
        members = {"session_id": http.post("/sessions", json=session).json()["id"]}
    instance_id = _start(http, posted, name, **members)
    _wait_for(stack, http, instance_id, "waiting", name)
    wait_until(lambda: gate in _open_gates(http, instance_id), f"the gate of {name}")
    signal = {"signal_type": {"custom": f"human_input:{gate}"}, "payload": payload}
    assert http.post(f"/instances/{instance_id}/signals", json=signal).status_code == 201
    _wait_for(stack, http, instance_id, "completed", name)
    assert _rows(http, instance_id)[-1] == last
    if members:
        data = http.get(f"/sessions/{members['session_id']}").json()["data"]
        assert data == {"locale": "de", "email_verified": True}


def _open_gates(http: httpx.Client, instance_id: str) -> list[str]:
    tree = http.get(f"/instances/{instance_id}/tree").json()
    return [node["block_id"] for node in tree if node["state"] == "waiting"]


@pytest.mark.parametrize("name", STANDING)
def test_what_waits_for_days_stands_at_the_right_moment(
    stack: Stack, http: httpx.Client, posted: dict[str, str], name: str
) -> None:
    block_id, delay = STANDING[name]
    instance_id = _start(http, posted, name)
    due = _moment_of(stack, http, instance_id, name)
    passed = due - _moment(_instance(http, instance_id)["created_at"])
    assert delay <= passed < delay + timedelta(minutes=5)
    assert block_id not in _rows(http, instance_id)


@pytest.mark.parametrize("name", IN_OFFICE_HOURS)
def test_what_keeps_office_hours_waits_for_the_morning(
    stack: Stack, http: httpx.Client, posted: dict[str, str], name: str
) -> None:
    zone = _where_it_is_night()
    instance_id = _start(http, posted, name, timezone=zone)
    due = _moment_of(stack, http, instance_id, name)
    local = due.astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute) == (8 if name == "outreach" else 9, 0)
    assert local.weekday() < 5
    assert IN_OFFICE_HOURS[name] not in _rows(http, instance_id)


def _moment_of(stack: Stack, http: httpx.Client, instance_id: str, name: str) -> datetime:
    wait_until(lambda: _due_later(http, instance_id) is not None, lambda: f"{name} to wait\n{stack.log_tail()}")
    due = _due_later(http, instance_id)
    assert due is not None
    return due


def _due_later(http: httpx.Client, instance_id: str) -> datetime | None:
    instance = _instance(http, instance_id)
    if instance["state"] != "scheduled" or instance["next_fire_at"] is None:
        return None
    due = _moment(instance["next_fire_at"])
    return due if due - _moment(instance["created_at"]) > timedelta(minutes=5) else None
