"""Whatever is sent, the answer is one of the client's faults and never one of ours (RELIABILITY E51)."""

from typing import Any
from uuid import uuid4

import pytest

from tests.contract.client import Api, definition, step

ID = str(uuid4())
POSTS = [
    ("POST", "/sequences"),
    ("POST", "/instances"),
    ("POST", "/instances/batch"),
    ("POST", f"/instances/{ID}/signals"),
    ("PATCH", f"/instances/{ID}/state"),
    ("PATCH", f"/instances/{ID}/context"),
    ("POST", f"/instances/{ID}/retry"),
    ("POST", "/sequences/name/instances"),
    ("POST", "/workers/tasks/poll"),
    ("POST", "/workers/tasks/poll/queue"),
    ("POST", f"/workers/tasks/{ID}/complete"),
    ("POST", f"/workers/tasks/{ID}/fail"),
    ("POST", f"/workers/tasks/{ID}/heartbeat"),
]
TEXTS = {
    "empty": b"",
    "blank": b"   ",
    "text": b"hello",
    "half": b'{"a": ',
    "two": b"{}{}",
    "nan": b'{"output": NaN}',
    "infinity": b'{"output": Infinity}',
    "overflow": b'{"output": 1e999}',
    "not utf-8": b'{"output": "\xff"}',
    "bom": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"output": "\\ud800"}',
    "nul": b'{"output": "\\u0000", "message": "m", "worker_id": "w", "handler_name": "h", "queue_name": "q"}',
    "nul in a key": b'{"a\\u0000b": 1}',
    "raw control": b'{"output": "\x00"}',
    "beyond 64 bit": b'{"output": 18446744073709551616}',
    "below 64 bit": b'{"output": -9223372036854775809}',
    "5000 digits": b'{"output": ' + b"9" * 5000 + b"}",
    "65 deep": b'{"output": ' + b"[" * 65 + b"]" * 65 + b"}",
    "5000 deep": b"[" * 5000 + b"]" * 5000,
    "objects deep": b'{"a":' * 600 + b"1" + b"}" * 600,
    "array": b"[]",
    "null": b"null",
    "number": b"1",
    "string": b'"x"',
}


@pytest.mark.parametrize(("method", "path"), POSTS, ids=[path.replace(ID, "id") for _, path in POSTS])
def test_hostile_texts_are_4xx_everywhere(api: Api, method: str, path: str):
    allowed = {"empty", "blank", "null"} if path.endswith("/retry") else set()
    for name, text in TEXTS.items():
        answer = api.http.request(method, path, content=text, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, (name, answer.text)
        if name not in allowed:
            assert answer.status_code in {400, 422}, (name, answer.text)
        assert "Traceback" not in answer.text


def poke(value: Any, hostile: Any) -> list[Any]:
    """Put something hostile in the place of each member of a document, one at a time."""
    return [_with(value, name, inside) for name in _names(value) for inside in [hostile, *poke(value[name], hostile)]]


def _names(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def _with(value: Any, name: Any, inside: Any) -> Any:
    changed = value.copy()
    changed[name] = inside
    return changed


def lacking(value: Any) -> list[Any]:
    """Leave out each member of the objects of a document, one at a time."""
    left_out = [{k: v for k, v in value.items() if k != name} for name in value] if isinstance(value, dict) else []
    return left_out + [_with(value, name, inside) for name in _names(value) for inside in lacking(value[name])]


def spoiled(value: Any) -> list[Any]:
    """Give every document that differs from this one in one place."""
    return [*lacking(value), *(poked for hostile in HOSTILE for poked in poke(value, hostile))]


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    2**64 - 1,
    1e308,
    "",
    "x" * 5000,
    "\u00e9\U0001f600",
    [],
    {},
    [[]],
    {"": {"": None}},
]


def documents() -> list[Any]:
    gate = {"prompt": "p", "timeout": 5, "choices": [{"label": "l", "value": "v"}], "store_as": "s"}
    full = step(
        "a",
        "noop",
        params={"x": "{{ data.x }}"},
        retry={"max_attempts": 2, "initial_backoff": 1, "max_backoff": 2, "retry_if": "true"},
        delay={"duration": 5, "jitter": 1},
        send_window={"start_hour": 1, "end_hour": 2, "days": [1]},
        timeout=100,
        when="true",
        wait_for_input=gate,
        queue_name="q",
        context_access={"data": {"fields": ["x"]}},
        output_schema={"type": "object"},
    )
    blocks = [
        full,
        {"type": "parallel", "id": "p", "branches": [[step("b")]]},
        {"type": "router", "id": "r", "routes": [{"condition": "x", "blocks": [step("c")]}], "default": []},
        {"type": "loop", "id": "l", "condition": "false", "body": [step("d")]},
        {"type": "for_each", "id": "f", "collection": "items", "body": [step("e")]},
        {"type": "try_catch", "id": "t", "try_block": [step("g")], "catch_block": [], "finally_block": []},
    ]
    return [definition(*blocks, input_schema={"type": "object"}), {"id": "short", "blocks": [{"handler": "noop"}]}]


def test_poked_definitions_are_never_500(api: Api):
    for document in documents():
        for poked in spoiled(document):
            answer = api.http.post("/sequences", json=poked)
            assert answer.status_code in {200, 201, 400, 403, 409, 413, 422}, (answer.status_code, poked)


def test_poked_requests_are_never_500(api: Api):
    sequence = api.sequence(step("a"), step("b", wait_for_input={}))
    instance = api.start_of(sequence)
    body = {
        **api.body(sequence),
        "priority": "High",
        "timezone": "UTC",
        "metadata": {"k": "v"},
        "context": {"data": {"x": 1}, "config": {}, "audit": [{"event": "e"}], "runtime": {"attempt": 1}},
        "dry_run": False,
        "next_fire_at": "2099-01-01T00:00:00Z",
        "concurrency_key": "c",
        "max_concurrency": 1,
        "idempotency_key": "i",
        "budget": {"max_steps": 1},
        "session_id": None,
    }
    (task,) = api.poll()
    lease = {"worker_id": "w1", "claim_epoch": 1}
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/instances", body),
        ("POST", "/instances/batch", {"instances": [body]}),
        ("POST", f"/sequences/{sequence}/instances", {**body, "version": 1}),
        ("PATCH", f"/instances/{instance}/context", {"context": body["context"]}),
        ("POST", f"/instances/{instance}/signals", {"signal_type": {"custom": "x"}, "payload": {"value": 1}}),
        ("POST", f"/workers/tasks/{task['id']}/heartbeat", {**lease, "checkpoint": {}, "checkpoint_seq": 0}),
        ("POST", "/workers/tasks/poll", {"handler_name": "h", "worker_id": "w", "limit": 1, "version": "1"}),
        ("POST", "/workers/tasks/poll/queue", {"handler_name": "h", "worker_id": "w", "queue_name": "q"}),
        ("POST", f"/workers/tasks/{task['id']}/fail", {**lease, "message": "m", "retryable": True, "details": {}}),
        ("POST", f"/workers/tasks/{task['id']}/complete", {**lease, "output": {"x": 1}, "logs": [{"ts": 1}]}),
        ("PATCH", f"/instances/{instance}/state", {"state": "scheduled", "next_fire_at": None}),
    ]
    for method, path, whole in requests:
        for poked in spoiled(whole):
            answer = api.http.request(method, path, json=poked)
            assert answer.status_code < 500, (path, poked, answer.text)


@pytest.mark.parametrize(
    "written",
    [
        "/instances/%00",
        "/instances?namespace=%00",
        "/instances?metadata.%00=x",
        "/instances?limit=99999999999999999999999",
        "/instances/" + "a" * 10_000,
        "/sequences/by-name?tenant_id=a&namespace=b&name=%ff%fe",
        "/sequences/by-name?tenant_id=a&namespace=b&name=%ed%a0%80",
        "/sequences/by-name?tenant_id=a&namespace=b&name=c&version=99999999999",
        "/instances?state=%F0%9F%98%80",
        "/workers?alive_within_secs=99999999999999",
        "/workers/tasks?offset=99999999999999",
        "/approvals?offset=9223372036854775807",
        "/..%2f..%2fetc/passwd",
        "/instances/%2e%2e/%2e%2e",
    ],
)
def test_hostile_addresses_are_never_500(api: Api, written: str):
    assert api.http.get(f"{api.root}/api/v1{written}").status_code < 500


@pytest.mark.parametrize(
    "tenant", ["\u00ff".encode("latin-1"), "\u00e9".encode(), b"'; DROP TABLE steps; --", b"x" * 5000, b"%s %(x)s"]
)
def test_hostile_tenants_are_never_500(api: Api, tenant: bytes):
    for path in ("/instances", "/approvals", "/workers/tasks", "/workers", "/sequences"):
        assert api.http.get(path, headers=[(b"X-Tenant-Id", tenant)]).status_code == 200


def test_strings_that_look_like_nul_are_kept(api: Api):
    data = {"text": "\\u0000", "long": "9" * 30, "n": 18446744073709551615, "m": -(2**63)}
    assert api.instance(api.start(step("a"), data=data))["context"]["data"] == data


def test_64_deep_is_accepted(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    deep = b'{"worker_id":"w1","claim_epoch":1,"output":' + b"[" * 63 + b"]" * 63 + b"}"
    path = f"/workers/tasks/{task['id']}/complete"
    answer = api.http.post(path, content=deep, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_blank_tenant_of_a_definition(api: Api):
    assert api.http.post("/sequences", json=definition(step("a"), tenant_id="")).status_code == 422
    assert api.http.post("/sequences", json=definition(step("a"), namespace="")).status_code in {201, 400}
    assert api.http.post("/sequences", json=definition(step("a"), name="")).status_code == 201


@pytest.mark.parametrize("number", [2**64, 10**40, -(2**63) - 1])
def test_api_2_a_number_too_large_for_its_member_is_of_a_wrong_type(api: Api, number: int):
    answer = api.http.post("/workers/tasks/poll", json={"handler_name": "h", "worker_id": "w", "limit": number})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "text/plain; charset=utf-8")
    elsewhere = api.http.post("/workers/tasks/poll", json={"handler_name": "h", "worker_id": "w", "unknown": number})
    assert (elsewhere.status_code, list(elsewhere.json())) == (400, ["error"])


def test_api_2_a_wrong_shape_is_told_before_text_that_cannot_be_stored(api: Api):
    answer = api.http.post("/workers/tasks/poll", json={"handler_name": "h\0"})
    assert (answer.status_code, answer.text.partition("missing")[1]) == (422, "missing")
