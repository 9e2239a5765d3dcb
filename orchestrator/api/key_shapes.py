"""Shapes of requests and answers about keys (contract, api §18.2)."""

from datetime import datetime

from pydantic import Field, StrictStr

from orchestrator.api.capabilities import Capability
from orchestrator.api.shapes import Moment, Shape


class CreateApiKey(Shape):
    """A key of a tenant; without capabilities it is an operator's."""

    tenant_id: StrictStr
    name: StrictStr = ""
    capabilities: list[Capability] = Field(default_factory=list)
    expires_at: Moment | None = None


class NewApiKey(Shape):
    """A key with its secret, which is never shown again."""

    id: str
    tenant_id: str
    name: str
    capabilities: list[Capability]
    secret: str
    created_at: datetime
    expires_at: datetime | None


class ApiKeyView(Shape):
    """A key as it is listed; `last_used_at` is exact to about a minute."""

    id: str
    tenant_id: str
    name: str
    capabilities: list[Capability]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked: bool
