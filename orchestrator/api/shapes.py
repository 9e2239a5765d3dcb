"""What clients send and receive, as pydantic models: requests are checked by them, answers are described by them.

Members nobody knows are ignored, as everywhere on the wire. Each resource has its own in `<resource>_shapes.py`.
Source: contract, api §9-§18.
"""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Shape(BaseModel):
    """Base of all shapes."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


def _moment(written: object) -> object:
    """Read an RFC 3339 time, in any zone, as UTC."""
    if written is None or isinstance(written, datetime):
        return written
    if not isinstance(written, str) or len(written) < 20 or written[10] not in "Tt ":
        raise ValueError("expected an RFC 3339 time with a zone")
    try:
        moment = datetime.fromisoformat(written.upper())
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("expected an RFC 3339 time with a zone") from error
    if moment.tzinfo is None:
        raise ValueError("expected an RFC 3339 time with a zone")
    return in_utc


Moment = Annotated[datetime, BeforeValidator(_moment)]
Natural = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Whole = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]


class Id(Shape):
    """The id of what was created."""

    id: UUID


class SequenceCreated(Id):
    """A stored sequence; `warnings` is absent when there are none."""

    warnings: list[str] | None = None


class Count(Shape):
    """How many."""

    count: int


class Info(Shape):
    """What runs here."""

    version: str
    storage_schema_version: str
    contract_schema_version: str
    env_label: str
    env_color: str
