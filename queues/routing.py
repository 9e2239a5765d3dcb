"""In which order the heads of a queue are let go: by priority, then round-robin over tenants. Pure."""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Waiting(Protocol):
    """What the order depends on."""

    @property
    def tenant_id(self) -> str: ...  # noqa: D102 - named by the class

    @property
    def priority(self) -> int: ...  # noqa: D102 - named by the class


W = TypeVar("W", bound=Waiting)


def fair_order(heads: Iterable[W]) -> list[W]:
    """Order heads by priority, highest first; within one priority each tenant gets a turn before any gets a second.

    Heads of one tenant keep their order, and so do the tenants' first heads.

    >>> from types import SimpleNamespace as Head
    >>> a1, a2, b1 = Head(tenant_id="a", priority=1), Head(tenant_id="a", priority=1), Head(tenant_id="b", priority=1)
    >>> fair_order([a1, a2, b1]) == [a1, b1, a2]
    True
    """
    by_priority: dict[int, dict[str, deque[W]]] = defaultdict(dict)
    for head in heads:
        by_priority[head.priority].setdefault(head.tenant_id, deque()).append(head)
    ordered: list[W] = []
    for priority in sorted(by_priority, reverse=True):
        tenants = deque(by_priority[priority].values())
        while tenants:
            waiting = tenants.popleft()
            ordered.append(waiting.popleft())
            if waiting:
                tenants.append(waiting)
    return ordered
