"""The table of endpoints and the direct calls: what they find and give is what FastAPI would."""

import asyncio
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Path, Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from orchestrator.api.addresses import InstanceId, Limit, Offset
from orchestrator.api.app import PREFIXED
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.direct import direct_call
from orchestrator.api.methods import routes_of
from orchestrator.api.routes import Routes
from orchestrator.api.services import Serving
from orchestrator.errors import PayloadTooLarge, RequestError

HOT = {
    ("POST", "/api/v1/instances"),
    ("GET", "/api/v1/instances"),
    ("GET", "/api/v1/instances/{id}"),
    ("POST", "/api/v1/instances/{id}/signals"),
    ("POST", "/api/v1/workers/tasks/poll"),
    ("POST", "/api/v1/workers/tasks/poll/queue"),
    ("POST", "/api/v1/workers/tasks/{id}/complete"),
    ("POST", "/api/v1/workers/tasks/{id}/fail"),
    ("POST", "/api/v1/workers/tasks/{id}/heartbeat"),
}
WRITTEN = [
    "/api/v1/instances/batch",
    "/api/v1/instances//state",
    "/api/v1/sequences/by-name",
    "/api/v1/plugins/a/b",
    "/api/v1/workers/a/b/commands",
    "/api/v1/workers/tasks/stats",
    "/api/v1/sequences/a/b/promote",
    "/api/v1/instances/",
    "/api/v1/instances",
    "/api/v1/nothing",
    "/api/v1/",
    "/health/live",
    "/webhooks/a",
    "/",
    "",
]


def _samples() -> list[str]:
    paths = [prefix + route.path for prefix, route in routes_of(PREFIXED)]
    ids = [path.replace("{", "").replace("}", "") for path in paths]
    return sorted({*paths, *ids, *(f"{path}/more" for path in ids), *WRITTEN})


@pytest.fixture(scope="module")
def table() -> Routes:
    return Routes(PREFIXED)


def test_the_table_finds_the_endpoint_that_fastapi_finds(table: Routes):
    theirs = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for prefix, router in PREFIXED:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            theirs.router.add_api_route(prefix + route.path, route.endpoint, methods=list(route.methods or ()))
    found = 0
    for path in _samples():
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            scope: dict[str, Any] = {"type": "http", "method": method, "path": path}
            expected = next(
                (
                    child
                    for route in theirs.routes
                    for match, child in [route.matches(dict(scope))]
                    if match is Match.FULL
                ),
                None,
            )
            match, child = table.matches(scope)
            assert (match is Match.FULL) == (expected is not None), (method, path)
            if expected is not None:
                found += 1
                assert child["endpoint"] is expected["endpoint"], (method, path)
                assert child["path_params"] == expected["path_params"], (method, path)
    assert found > len(PREFIXED)


def test_what_clients_call_most_is_called_directly(table: Routes):
    written = {
        (method, prefix + route.path): route.endpoint
        for prefix, route in routes_of(PREFIXED)
        for method in route.methods or ()
    }
    assert {each for each in HOT if not table.calls_directly(written[each])} == set()


router = APIRouter()


@router.post("/things/{id}")
def _plain(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    return Response(f"{serving.settings.max_body_bytes} {caller.tenant} {instance_id} {body.content!r}")


@router.get("/found")
def _asking(
    request: Request,
    name: str | None = None,
    owner: UUID | None = None,
    note: Annotated[str | None, Query(description="said of it")] = "none",
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    return Response(f"{request.url.query} {name!r} {owner!r} {note!r} {offset!r} {limit!r}")


@router.delete("/things/{id}")
async def _awaited(instance_id: InstanceId) -> Response:
    raise PayloadTooLarge(f"{instance_id}")


@router.get("/things/{id}")
def _failing(instance_id: InstanceId) -> Response:
    raise LookupError(instance_id)


def _shaped(instance_id: InstanceId) -> dict[str, str]:
    return {"id": str(instance_id)}


def _counting(instance_id: InstanceId, limit: int = 1) -> Response:
    return Response(f"{instance_id} {limit}")


def _demanding(name: str | None) -> Response:
    return Response(name)


def _short(name: Annotated[str | None, Query(max_length=2)] = None) -> Response:
    return Response(name)


def _renamed(name: Annotated[str | None, Query(alias="n")] = None) -> Response:
    return Response(name)


def _bounded(number: Annotated[int, Path(alias="id", ge=1)]) -> Response:
    return Response(str(number))


def _long(instance_id: Annotated[UUID, Path(alias="id", max_length=2)]) -> Response:
    return Response(str(instance_id))


@pytest.mark.parametrize("endpoint", [_shaped, _counting, _demanding, _short, _renamed, _bounded, _long])
def test_what_only_fastapi_can_give_is_left_to_it(endpoint: Any):
    assert direct_call(endpoint) is None


@pytest.mark.parametrize("endpoint", [_plain, _asking, _awaited, _failing])
def test_what_takes_no_more_is_called_directly(endpoint: Any):
    assert direct_call(endpoint) is not None


async def _refused(_request: Request, error: Exception) -> Response:
    return Response(f"refused {error}", 413)


def _app(*, with_table: bool) -> httpx.ASGITransport:
    app = FastAPI()
    if with_table:
        app.router.routes.append(Routes([("", router)]))
    app.include_router(router)
    app.state.services = SimpleNamespace(settings=SimpleNamespace(max_body_bytes=5))
    app.add_exception_handler(RequestError, _refused)

    async def known(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "caller": Caller("t")}, receive, send)

    return httpx.ASGITransport(known, raise_app_exceptions=False)


def _answer(transport: httpx.ASGITransport, method: str, path: str, content: bytes) -> tuple[int, str, Any]:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, path, content=content)

    answer = asyncio.run(send())
    return answer.status_code, answer.text, answer.headers


@pytest.mark.parametrize("content", [b"", b"body", b"too long"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_a_direct_call_gives_what_fastapi_gives(method: str, content: bytes):
    id_ = str(uuid4())
    ours, theirs = _app(with_table=True), _app(with_table=False)
    for path in (id_, id_.upper(), id_.replace("-", ""), f"{{{id_}}}", f"{id_}%0A", "no-id", f"{id_}/more", ""):
        given = _answer(ours, method, f"/things/{path}", content)
        assert given == _answer(theirs, method, f"/things/{path}", content), path
    assert given[0] == 404


@pytest.mark.parametrize("name", ["name", "owner", "note", "offset", "limit", "other"])
def test_a_direct_call_reads_a_query_as_fastapi_does(name: str):
    ours, theirs = _app(with_table=True), _app(with_table=False)
    id_ = str(uuid4())
    numbers = [
        "0",
        "7",
        "007",
        "+7",
        "-1",
        "1.0",
        "1_0",
        " 7",
        "%207",
        "7%0A",
        "\u0667",
        str(2**63 - 1),
        str(2**63),
        "9" * 40,
    ]
    ids = [id_, id_.upper(), id_.replace("-", ""), f"{{{id_}}}", f"urn:uuid:{id_}", f"{id_}%0A", id_[1:]]
    for text in ("", "null", "a+b%20c", "%C3%A9", "%FF", "a%0Ab", *numbers, *ids):
        for query in (
            f"{name}={text}",
            f"{name}=1&{name}={text}",
            f"{name}={text}&{name}",
            name,
            f"{name.upper()}={text}",
        ):
            given = _answer(ours, "GET", f"/found?{query}", b"")
            assert given == _answer(theirs, "GET", f"/found?{query}", b""), query
