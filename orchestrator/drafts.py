"""Definitions as clients post them, read but not stored: canonical or shorthand, of the caller's tenant."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from orchestrator.errors import Forbidden, InvalidArgument
from sequences.document import NestingError, SequenceDefinition, parse_definition
from sequences.shorthand import is_shorthand, normalize

_T = TypeVar("_T")
_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_ID: Final = UUID(int=0)


def read_definition(data: Any, *, tenant: str | None, now: datetime, new_id: UUID) -> SequenceDefinition:
    """Read a posted document; `now` and `new_id` are for shorthand, which has neither time nor id.

    Raises:
        DocumentError: It does not have the shape of the language.
        InvalidArgument: Its blocks are nested too deeply.
        Forbidden: It names another tenant.
    """
    if is_shorthand(data):
        data = _refusing_depth(lambda: normalize(data, tenant_id=tenant or "default", now=now, new_id=new_id))
    definition = _refusing_depth(lambda: parse_definition(data))
    if tenant is not None and definition.tenant_id != tenant:
        raise Forbidden("tenant_id in body does not match X-Tenant-Id header")
    return definition


def read_draft(data: Any, *, tenant: str | None) -> SequenceDefinition:
    """Read a document that will not be stored. The same one always reads the same, shorthand too."""
    return read_definition(data, tenant=tenant, now=_NO_TIME, new_id=_NO_ID)


def _refusing_depth(read: Callable[[], _T]) -> _T:
    """Too deep blocks break a rule of the language, although they are found while its shape is read."""
    try:
        return read()
    except NestingError as error:
        raise InvalidArgument(str(error)) from error
