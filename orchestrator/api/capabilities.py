"""What the holder of a tenant key may do (contract, api §3.2). Pure rules over a method and a path.

Paths are without the prefix of the API, so the two addresses of an endpoint have one answer.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final

_WEBHOOK: Final = re.compile(r"/webhooks/(?!(?:outbox|deliveries)$)[^/]+")
_ADMIN_ONLY: Final = re.compile(
    r"(?:/api-keys|/cluster|/webhooks/outbox|/webhooks/deliveries|/workers/commands|/workers/version-pins)(?:/.*)?"
    r"|/workers/.+/commands"
)
_SIGNALS: Final = re.compile(r"/instances/[^/]+/signals?")
PUBLIC_PATHS: Final = frozenset({"/health/live", "/health/ready", "/info"})


class Capability(StrEnum):
    """A set of endpoints."""

    OPERATOR = "operator"
    WORKER = "worker"
    PUBLISHER = "publisher"
    APPROVER = "approver"
    AUDITOR = "auditor"
    DEVICE = "device"


_PREFIXES: Final[dict[Capability, tuple[str, ...]]] = {
    Capability.OPERATOR: ("/",),
    Capability.WORKER: ("/workers", "/handlers"),
    Capability.PUBLISHER: ("/sequences", "/plugins", "/releases"),
    Capability.APPROVER: ("/approvals",),
    Capability.AUDITOR: (),
    Capability.DEVICE: (),
}


def is_webhook(path: str) -> bool:
    """Tell whether an address is one of the public webhook; what administers webhooks wins over a trigger of that slug.

    >>> [is_webhook(path) for path in ("/webhooks/orders", "/webhooks/outbox", "/webhooks/a/b")]
    [True, False, False]
    """
    return _WEBHOOK.fullmatch(path) is not None


def is_public(method: str, path: str) -> bool:
    """Tell whether a path, as the client wrote it, needs neither key nor tenant.

    >>> [is_public("POST", path) for path in ("/webhooks/orders", "/webhooks/outbox", "/instances")]
    [True, False, False]
    """
    return path in PUBLIC_PATHS or (method == "POST" and is_webhook(path))


def is_admin_only(path: str) -> bool:
    """Tell whether a path is open to the root key alone.

    >>> [is_admin_only(path) for path in ("/api-keys/ak_1", "/workers/w1/commands", "/workers/tasks/poll")]
    [True, True, False]
    """
    return _ADMIN_ONLY.fullmatch(path) is not None


def is_allowed(capabilities: Collection[Capability], method: str, path: str) -> bool:
    """Tell whether one of the capabilities allows a request to a path that is not admin-only.

    >>> is_allowed([Capability.WORKER], "POST", "/workers/tasks/poll")
    True
    >>> is_allowed([Capability.AUDITOR], "POST", "/workers/tasks/poll")
    False
    """
    if Capability.AUDITOR in capabilities and method in {"GET", "HEAD"}:
        return True
    if Capability.APPROVER in capabilities and _SIGNALS.fullmatch(path) is not None:
        return True
    return any(path.startswith(_PREFIXES[capability]) for capability in capabilities)
