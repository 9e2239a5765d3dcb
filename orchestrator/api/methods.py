"""Which methods a path answers: what is written out wins over parameters, whatever the method (contract, api §1)."""

import re
from collections.abc import Iterable, Iterator

from fastapi import APIRouter
from fastapi.routing import APIRoute


class Methods:
    """The methods of every path of some routers.

    Args:
        prefixed: Routers, and the prefix that the app puts before their paths.
    """

    def __init__(self, prefixed: Iterable[tuple[str, APIRouter]]) -> None:
        self._literal: dict[str, frozenset[str]] = {}
        self._patterns: list[tuple[str, re.Pattern[str], frozenset[str]]] = []
        for prefix, route in routes_of(prefixed):
            path, methods = prefix + route.path, frozenset(route.methods or ())
            if route.param_convertors:
                self._patterns.append((prefix, route.path_regex, methods))
            else:
                self._literal[path] = self._literal.get(path, frozenset()) | methods

    def refused(self, method: str, path: str) -> bool:
        """Tell whether a path without parameters exists, but not with this method.

        Without this check a pattern would take it: `GET /instances/batch` would read the instance `batch`.
        """
        methods = self._literal.get(path)
        return methods is not None and method not in methods

    def allowed(self, path: str) -> str:
        """Give the header `Allow` of a path that exists."""
        methods = self._literal.get(path) or frozenset[str]().union(
            *(
                methods
                for prefix, pattern, methods in self._patterns
                if path.startswith(prefix) and pattern.fullmatch(path[len(prefix) :])
            )
        )
        return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def routes_of(prefixed: Iterable[tuple[str, APIRouter]]) -> Iterator[tuple[str, APIRoute]]:
    """Give the endpoints of routers with the prefix of each, in the order in which they are asked."""
    for prefix, router in prefixed:
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield prefix, route
