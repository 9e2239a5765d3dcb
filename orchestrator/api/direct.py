"""Endpoints that are called without FastAPI: those that take nothing but what is read here.

It reads the services, the caller, the request, a body, ids, and parameters of a query without conditions of their own.

FastAPI finds out at each request what an endpoint takes, and keeps stacks of what is to be closed behind it: more than
half of what is left of a small request once it is routed. Here it is found out once. An endpoint that takes more, and
an id or a number in another than the usual form, go FastAPI's way.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args
from uuid import UUID

import anyio.to_thread
from fastapi.params import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.auth import CallerDependency, caller_of
from orchestrator.api.bodies import Body, read_body
from orchestrator.api.services import Serving, services_of

Source = Callable[[Request], Awaitable[Any]]

_ID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_TEXT: Final = re.compile(r".*", re.DOTALL)
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


async def _request(request: Request) -> Request:
    return request


_SOURCES: Final = ((Serving, services_of), (CallerDependency, caller_of), (Body, read_body), (Request, _request))


@dataclass(frozen=True, slots=True)
class _Query:
    """A parameter of a query.

    Attributes:
        usual: The form in which it is read here.
        default: What it is where it is not given.
    """

    name: str
    usual: re.Pattern[str]
    read: Callable[[str], Any]
    default: Any

    def value(self, given: Mapping[str, str]) -> Any:
        """Give the argument."""
        return self.read(given[self.name]) if self.name in given else self.default


@dataclass(frozen=True, slots=True)
class DirectCall:
    """How an endpoint is called.

    Attributes:
        sources: What gives its arguments, in the order of its signature.
        ids: Its arguments that are ids, by their names in the address.
        queries: Its arguments that are parameters of the query.
    """

    endpoint: Callable[..., Any]
    is_async: bool
    sources: tuple[tuple[str, Source], ...]
    ids: tuple[tuple[str, str], ...]
    queries: tuple[_Query, ...]

    def takes(self, request: Request) -> bool:
        """Tell whether the ids of an address, and the parameters of its query, are in the usual form."""
        if not all(_ID.fullmatch(request.path_params[alias]) is not None for _, alias in self.ids):
            return False
        given = request.query_params if self.queries else {}
        return all(each.usual.fullmatch(given[each.name]) is not None for each in self.queries if each.name in given)

    async def __call__(self, request: Request) -> Response:
        """Call the endpoint, in a thread unless it is asynchronous."""
        values = {name: await source(request) for name, source in self.sources}
        values |= {name: UUID(request.path_params[alias]) for name, alias in self.ids}
        values |= {each.name: each.value(request.query_params) for each in self.queries}
        answer: Response
        if self.is_async:
            answer = await self.endpoint(**values)
        else:
            answer = await anyio.to_thread.run_sync(partial(self.endpoint, **values))
        return answer


def direct_call(endpoint: Callable[..., Any]) -> DirectCall | None:
    """Find out how an endpoint is called; None if it takes or gives what is FastAPI's to read or to shape."""
    sources: list[tuple[str, Source]] = []
    ids: list[tuple[str, str]] = []
    queries: list[_Query] = []
    signature = inspect.signature(endpoint)
    for name, parameter in signature.parameters.items():
        source = next((give for kind, give in _SOURCES if parameter.annotation is kind), None)
        alias = _id_alias(parameter.annotation)
        if source is not None:
            sources.append((name, source))
        elif alias is not None:
            ids.append((name, alias))
        elif (query := _query(parameter)) is not None:
            queries.append(query)
        else:
            return None
    if signature.return_annotation is not Response:
        return None
    return DirectCall(endpoint, inspect.iscoroutinefunction(endpoint), tuple(sources), tuple(ids), tuple(queries))


def _id_alias(annotation: Any) -> str | None:
    """Give the name that an id has in the address; None if it is no id, or one with conditions."""
    match get_args(annotation):
        case [kind, Path(alias=str(alias), metadata=[])] if kind is UUID:
            return alias
        case _:
            return None


def _query(parameter: inspect.Parameter) -> _Query | None:
    """Say how a parameter of a query is read; None if it has conditions of its own, or must be given."""
    kind = parameter.annotation
    match get_args(kind):
        case [plain, Query(alias=None, validation_alias=None, metadata=[])]:
            kind = plain
    if parameter.default is inspect.Parameter.empty:
        return None
    if kind in (Offset, Limit):
        return _Query(parameter.name, _NUMBER, int, parameter.default)
    if kind == UUID | None:
        return _Query(parameter.name, _ID, UUID, parameter.default)
    if kind == str | None:
        return _Query(parameter.name, _TEXT, str, parameter.default)
    return None
