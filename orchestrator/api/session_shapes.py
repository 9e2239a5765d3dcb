"""Shapes of sessions (contract, api §17.1)."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import StrictStr

from orchestrator.api.shapes import Moment, Shape


class SessionState(StrEnum):
    """States of a session; only an active one takes new instances."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    EXPIRED = "expired"


class CreateSession(Shape):
    """Data that instances are to share, under a key of the tenant's."""

    tenant_id: StrictStr
    session_key: StrictStr
    data: Any = None
    expires_at: Moment | None = None


class SetSessionData(Shape):
    """Data that replace those of a session."""

    data: Any


class SetSessionState(Shape):
    """A state of a session."""

    state: SessionState


class SessionView(Shape):
    """Data that instances share; `expires_at` is left out if there is none."""

    id: UUID
    tenant_id: str
    session_key: str
    data: Any
    state: SessionState
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
