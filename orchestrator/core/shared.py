"""Data that several instances share: a session's (sequences contract §8.6).

A decision says what it writes, and the store folds that into the newest data under the session's lock. So two instances
that write at the same moment lose nothing of each other, and neither waits for the other's decision.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.core.changes import SessionMemberGone, SessionWritten


def folded(data: Any, change: SessionWritten | SessionMemberGone) -> Any:
    """Give the data of a session after a change."""
    if isinstance(change, SessionWritten):
        return written(data, change.path, change.value)
    members = data if isinstance(data, Mapping) else {}
    return {name: value for name, value in members.items() if name != change.name}


def written(current: Any, path: tuple[str, ...], value: Any) -> Any:
    """Give a JSON value with `value` at a path, making objects on the way; what is no object gives way to one.

    >>> written({"a": 1}, ("b", "c"), 2)
    {'a': 1, 'b': {'c': 2}}
    """
    if not path:
        return value
    members = current if isinstance(current, Mapping) else {}
    return {**members, path[0]: written(members.get(path[0]), path[1:], value)}
