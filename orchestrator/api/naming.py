"""Names that clients give to things of a tenant, and the tenant they are meant in."""

from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.api.auth import Caller
from orchestrator.catalogue import MAX_NAME_BYTES
from orchestrator.errors import InvalidArgument

MAX_NAME_CHARACTERS: Final = 255
"""Two such names fit into a row of an index, whatever they are written in."""
MAX_LISTED: Final = 1000
DEFAULT_TENANT: Final = "default"


def check_name(what: str, written: str) -> None:
    """Refuse a name that is blank or too long."""
    if not written.strip() or len(written) > MAX_NAME_CHARACTERS:
        raise InvalidArgument(f"{what} must have 1 to {MAX_NAME_CHARACTERS} characters")


def check_polled(what: str, written: str) -> None:
    """Refuse a name that is blank, or longer than what a poll may name."""
    check_name(what, written)
    if len(written.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"{what} is longer than {MAX_NAME_BYTES} bytes")


def tenant_meant(caller: Caller, asked: str | None = None) -> str:
    """Give the tenant in which one thing is looked for: the caller's, else the one asked for, else `default`."""
    return caller.narrowed(asked) or DEFAULT_TENANT


def owner_meant(caller: Caller, asked: str | None, owners: Callable[[], Sequence[str]]) -> str:
    """Give the tenant whose thing of a name is meant; a caller without a tenant sees those of all tenants (§3.3)."""
    if tenant := caller.narrowed(asked):
        return tenant
    found = owners()
    if not found or DEFAULT_TENANT in found:
        return DEFAULT_TENANT
    if len(found) > 1:
        raise InvalidArgument("several tenants have one of that name: say whose is meant with `tenant_id`")
    return found[0]
