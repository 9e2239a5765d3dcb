"""One table of all endpoints, in front of FastAPI's own routers.

FastAPI asks one included router after the other, each of which asks its routes, and asks those that match once more:
more than half of what a small request costs the framework. Here an address is compared with the endpoints that begin
like it. Their order, and so who wins, stays as it is written; what no endpoint answers is left to FastAPI.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.convertors import Convertor
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, compile_path
from starlette.types import Receive, Scope, Send

from orchestrator.api.direct import DirectCall, direct_call
from orchestrator.api.methods import routes_of
from orchestrator.api.segments import as_written

_LITERAL_START: Final = re.compile(r"(?:/api/v1)?/[^/{}]+")


@dataclass(frozen=True, slots=True, eq=False)
class _Endpoint:
    """One endpoint.

    Attributes:
        convertors: What reads the parameters of its address.
    """

    pattern: re.Pattern[str]
    convertors: dict[str, Convertor[Any]]
    methods: frozenset[str]
    route: APIRoute


class Routes(BaseRoute):
    """The endpoints of some routers.

    Args:
        prefixed: Routers, and the prefix that the app puts before their paths.
    """

    def __init__(self, prefixed: Iterable[tuple[str, APIRouter]]) -> None:
        self._beginning: dict[str, list[_Endpoint]] = defaultdict(list)
        self._calls: dict[Callable[..., Any], DirectCall] = {}
        for prefix, route in routes_of(prefixed):
            path = prefix + route.path
            compiled, _, convertors = compile_path(path)
            pattern = re.compile(compiled.pattern, re.DOTALL)  # a name at the end may hold a line break
            methods = frozenset(route.methods or ())
            self._beginning[_beginning(path)].append(_Endpoint(pattern, convertors, methods, route))
            call = None if route.dependencies else direct_call(route.endpoint)
            if call is not None:
                self._calls[route.endpoint] = call

    def calls_directly(self, endpoint: Callable[..., Any]) -> bool:
        """Tell whether an endpoint is called without FastAPI."""
        return endpoint in self._calls

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Find the endpoint of a request."""
        if scope["type"] != "http":
            return Match.NONE, {}
        path, method = scope["path"], scope["method"]
        for each in self._beginning.get(_beginning(path), ()):
            if method in each.methods and (found := each.pattern.match(path)) is not None:
                written = {name: as_written(value) for name, value in found.groupdict().items()}
                values = {name: each.convertors[name].convert(value) for name, value in written.items()}
                return Match.FULL, {"route": each.route, "endpoint": each.route.endpoint, "path_params": values}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with the endpoint that was found."""
        call = self._calls.get(scope["endpoint"])
        request = Request(scope, receive, send)
        if call is not None and call.takes(request):
            answer = await call(request)
            await answer(scope, receive, send)
        else:
            route: APIRoute = scope["route"]
            await route.app(scope, receive, send)


def _beginning(path: str) -> str:
    """Give what endpoints are kept apart by.

    >>> _beginning("/api/v1/instances/{id}"), _beginning("/webhooks/a"), _beginning("/")
    ('/api/v1/instances', '/webhooks', '')
    """
    found = _LITERAL_START.match(path)
    return found[0] if found is not None else ""
