"""Shapes of the requests and answers about credentials (contract, api §18.1)."""

from datetime import datetime

from pydantic import StrictBool, StrictStr

from orchestrator.api.shapes import Moment, Shape
from orchestrator.store.credentials import CredentialKind


class CreateCredential(Shape):
    """A secret under a name; its id is nobody else's."""

    id: StrictStr
    name: StrictStr
    kind: CredentialKind
    value: StrictStr
    tenant_id: StrictStr | None = None
    expires_at: Moment | None = None
    refresh_url: StrictStr | None = None
    refresh_token: StrictStr | None = None
    description: StrictStr | None = None


class ChangeCredential(Shape):
    """What changes of a credential; null takes away what may be absent."""

    name: StrictStr | None = None
    kind: CredentialKind | None = None
    value: StrictStr | None = None
    enabled: StrictBool | None = None
    expires_at: Moment | None = None
    refresh_url: StrictStr | None = None
    refresh_token: StrictStr | None = None
    description: StrictStr | None = None


class CredentialView(Shape):
    """A credential without its secrets; what it does not have is left out."""

    id: str
    tenant_id: str
    name: str
    kind: CredentialKind
    enabled: bool
    expires_at: datetime | None = None
    refresh_url: str | None = None
    has_refresh_token: bool
    description: str | None = None
    created_at: datetime
    updated_at: datetime
