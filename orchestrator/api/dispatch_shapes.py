"""Shapes of how the tasks of a queue reach their worker (contract, api §13.8)."""

from datetime import datetime
from typing import Literal

from pydantic import StrictBool, StrictStr

from orchestrator.api.resource_shapes import TenantId
from orchestrator.api.shapes import Shape


class ConfigureDispatch(Shape):
    """How the tasks of a queue reach their worker; `sync` makes a refusal of the receiver the failure of the task."""

    tenant_id: TenantId
    queue_name: StrictStr
    mode: Literal["poll", "push"]
    push_url: StrictStr | None = None
    secret: StrictStr | None = None
    second_secret: StrictStr | None = None
    sync: StrictBool = False


class DispatchView(Shape):
    """How the tasks of a queue reach their worker. Secrets are never shown; `sync` is shown when it is true."""

    tenant_id: str
    queue_name: str
    mode: Literal["poll", "push"]
    push_url: str | None = None
    sync: bool | None = None
    created_at: datetime
    updated_at: datetime
