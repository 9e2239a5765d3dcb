"""Parameters of paths and queries, with the limits that more than one endpoint has."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query

InstanceId = Annotated[UUID, Path(alias="id")]
SequenceId = Annotated[UUID, Path(alias="id")]
TaskId = Annotated[UUID, Path(alias="id")]
Offset = Annotated[int, Query(ge=0, lt=2**63)]
Limit = Annotated[int, Query(ge=0, lt=2**63)]
"""As written; endpoints clamp it to their maximum."""
