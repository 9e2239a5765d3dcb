"""Endpoints that are called without FastAPI: those that take nothing but the services, the caller, a body and ids.

FastAPI finds out at each request what an endpoint takes, and keeps stacks of what is to be closed behind it: more than
half of what is left of a small request once it is routed. Here it is found out once. An endpoint that takes more, and
an id in another than the usual form, go FastAPI's way.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args
from uuid import UUID

import anyio.to_thread
from fastapi.params import Path
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.auth import CallerDependency, caller_of
from orchestrator.api.bodies import Body, read_body
from orchestrator.api.services import Serving, services_of

Source = Callable[[Request], Awaitable[Any]]

_ID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_SOURCES: Final = ((Serving, services_of), (CallerDependency, caller_of), (Body, read_body))


@dataclass(frozen=True, slots=True)
class DirectCall:
    """How an endpoint is called.

    Attributes:
        sources: What gives its arguments, in the order of its signature.
        ids: Its arguments that are ids, by their names in the address.
    """

    endpoint: Callable[..., Any]
    is_async: bool
    sources: tuple[tuple[str, Source], ...]
    ids: tuple[tuple[str, str], ...]

    def takes(self, path_params: Mapping[str, Any]) -> bool:
        """Tell whether the ids of an address are in the usual form."""
        return all(_ID.fullmatch(path_params[alias]) is not None for _, alias in self.ids)

    async def __call__(self, request: Request) -> Response:
        """Call the endpoint, in a thread unless it is asynchronous."""
        values = {name: await source(request) for name, source in self.sources}
        values |= {name: UUID(request.path_params[alias]) for name, alias in self.ids}
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
    signature = inspect.signature(endpoint)
    for name, parameter in signature.parameters.items():
        source = next((give for kind, give in _SOURCES if parameter.annotation is kind), None)
        alias = _id_alias(parameter.annotation)
        if source is not None:
            sources.append((name, source))
        elif alias is not None:
            ids.append((name, alias))
        else:
            return None
    if signature.return_annotation is not Response:
        return None
    return DirectCall(endpoint, inspect.iscoroutinefunction(endpoint), tuple(sources), tuple(ids))


def _id_alias(annotation: Any) -> str | None:
    """Give the name that an id has in the address; None if it is no id, or one with conditions."""
    match get_args(annotation):
        case [kind, Path(alias=str(alias), metadata=[])] if kind is UUID:
            return alias
        case _:
            return None
