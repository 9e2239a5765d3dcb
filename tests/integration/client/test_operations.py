"""The client can do whatever the server can: every operation of its description is asked for by some method."""

import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

import httpx
import pytest

from orchestrator.client import Client, Patience, Renewal, StartOptions, WorkerTask
from orchestrator.client.transport import PREFIX
from orchestrator.engine import Engine
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from tests.support.serving import Reception

Operation = tuple[str, str]

EXCEPTIONS: Final[Mapping[Operation, str]] = {
    ("GET", "/health/live"): "for whoever supervises processes",
    ("GET", "/health/ready"): "for balancers",
    ("GET", "/info"): "for dashboards",
    ("GET", "/metrics"): "for Prometheus, which has a client of its own",
    ("POST", "/webhooks/{slug}"): "for strangers who have no key; ours fire the trigger",
    ("GET", "/api/v1/changes/stream"): "`every_change` reads the same feed",
    ("GET", "/api/v1/sequences.json"): "the same list as a bare array, without the sign of a next page",
    ("GET", "/api/v1/tenants/{tenant_id}/circuit-breakers"): "the same as that of the caller",
    ("GET", "/api/v1/tenants/{tenant_id}/circuit-breakers/{handler}"): "the same as that of the caller",
    ("POST", "/api/v1/tenants/{tenant_id}/circuit-breakers/{handler}/reset"): "the same as that of the caller",
}
SOME_ID: Final = UUID("00000000-0000-4000-8000-000000000001")
A_TASK: Final = WorkerTask(
    id=SOME_ID, instance_id=SOME_ID, block_id="a", handler_name="h", attempt=0, worker_id="w", claim_epoch=1,
    idempotency_key="k",
)  # fmt: skip
EXAMPLES: Final[Mapping[object, Any]] = {
    str: "name",
    int: 1,
    float: 1.0,
    bool: True,
    UUID: SOME_ID,
    Any: {},
    datetime: datetime(2030, 1, 1, tzinfo=UTC),
    date: date(2030, 1, 1),
    StartOptions: StartOptions(),
    Renewal: Renewal(url="https://a/", token="t", expires_at=datetime(2030, 1, 1, tzinfo=UTC)),
    WorkerTask: A_TASK,
}


def examples(wanted: Any) -> list[Any]:
    """Give an argument for each form that an annotation allows."""
    if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union:
        return [each for part in typing.get_args(wanted) if part is not type(None) for each in examples(part)]
    kind = typing.get_origin(wanted) or wanted
    if kind in EXAMPLES:
        return [EXAMPLES[kind]]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return [{"id": "x", "blocks": [], "name": "n", "version": 1}]
    if isinstance(kind, type) and issubclass(kind, Iterable):
        (item, *_) = typing.get_args(wanted)
        return [[each] for each in examples(item)]
    return []


def calls_of(client: Client, name: str) -> Iterator[Any]:
    """Make calls of a method: with one argument after the other in each of its forms, and with what is optional."""
    method = getattr(client, name)
    hints = typing.get_type_hints(method)
    parameters = inspect.signature(method).parameters.values()
    forms = {each.name: examples(hints[each.name]) for each in parameters if each.name != "watch"}
    needed = [each.name for each in parameters if each.default is each.empty]
    for form in range(max([1, *(len(each) for each in forms.values())])):
        chosen = {each: values[form % len(values)] for each, values in forms.items() if values}
        yield lambda chosen=chosen: method(**{each: chosen[each] for each in needed})
        yield lambda chosen=chosen: method(**chosen)


class Listening:
    """Answers every request that there is no such thing, and remembers what was asked for."""

    def __init__(self, operations: set[Operation]) -> None:
        self.asked: set[Operation] = set()
        by_parameters = sorted(operations, key=lambda each: each[1].count("{"))
        self._patterns = [(each, re.compile(re.sub(r"\{\w+\}", "[^/]+", each[1]))) for each in by_parameters]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        for operation, pattern in self._patterns:
            if operation[0] == request.method and pattern.fullmatch(path):
                self.asked.add(operation)
                return self._answer(operation)
        raise AssertionError(f"the server has no {request.method} {path}")

    def _answer(self, operation: Operation) -> httpx.Response:
        if operation == ("GET", f"{PREFIX}/sequences/{{id}}") or operation[1].endswith("/by-name"):
            document = {"id": str(SOME_ID), "tenant_id": "t", "namespace": "d", "name": "n", "version": 1}
            return httpx.Response(200, json=document)
        return httpx.Response(404, json={"error": "not found: it"})


@pytest.fixture
def operations(reception: Reception, engine: Engine, settings: Settings) -> set[Operation]:
    """The operations that the server describes."""
    url = reception.address(engine, settings)
    document = httpx.get(f"{url}/api-docs/openapi.json", headers={"x-tenant-id": "t"}, timeout=60).json()
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def test_every_operation_has_a_method(operations: set[Operation]) -> None:
    listening = Listening(operations)
    transport = httpx.MockTransport(listening)
    with Client("http://server", tenant="t", patience=Patience(tries=1), transport=transport) as client:
        names = [
            name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_" and name != "close"
        ]
        for name in names:
            for call in calls_of(client, name):
                with suppress(OrchestratorError):
                    answer = call()
                    if isinstance(answer, Iterator):
                        next(answer, None)
    assert set(EXCEPTIONS) <= operations, "an exception is no operation"
    assert operations - listening.asked - set(EXCEPTIONS) == set()
    assert listening.asked & set(EXCEPTIONS) == set(), "an exception has a method"
