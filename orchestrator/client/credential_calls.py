"""Requests about credentials: secrets that steps name and never hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.client.forms import part, read_one, read_rows, send, send_blindly
from orchestrator.client.shapes import Shape
from orchestrator.client.transport import Call
from orchestrator.errors import InvalidArgument


class Credential(Shape):
    """A credential without its secrets.

    Attributes:
        kind: `api_key`, `oauth2` or `basic`.
        enabled: Whether steps may use it.
        expires_at: When its value stops being good; None for never.
        refresh_url: Where a new value is had before that.
    """

    id: str
    tenant_id: str
    name: str
    kind: str
    enabled: bool
    expires_at: datetime | None = None
    refresh_url: str | None = None
    has_refresh_token: bool = False
    description: str | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """How an OAuth2 credential is renewed.

    Attributes:
        url: Its provider's token endpoint.
        token: The refresh token.
        expires_at: When the present value stops being good; an aware time.
    """

    url: str
    token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Renewal(url={self.url!r}, expires_at={self.expires_at!r})"


def create(
    credential_id: str,
    value: str,
    *,
    name: str | None,
    kind: str,
    expires_at: datetime | None,
    renewal: Renewal | None,
    description: str | None,
) -> Call[Credential]:
    """Store a secret."""
    body: dict[str, Any] = {
        "id": credential_id,
        "name": name or credential_id,
        "kind": kind,
        "value": value,
        "expires_at": _moment(expires_at),
        "description": description,
    }
    if renewal is not None:
        body |= {
            "refresh_url": renewal.url,
            "refresh_token": renewal.token,
            "expires_at": _moment(renewal.expires_at),
        }
    written = {member: each for member, each in body.items() if each is not None}
    return send("POST", "/credentials", Credential, written)


def one(credential_id: str) -> Call[Credential]:
    """Read a credential."""
    return read_one(_path(credential_id), Credential)


def every(*, limit: int) -> Call[tuple[Credential, ...]]:
    """List credentials."""
    return read_rows("/credentials", Credential, {"limit": limit})


def change(credential_id: str, changes: Mapping[str, Any]) -> Call[Credential]:
    """Change members; the same change again does no harm."""
    return send("PATCH", _path(credential_id), Credential, dict(changes), may_repeat=True)


def delete(credential_id: str) -> Call[None]:
    """Remove a credential."""
    return send_blindly("DELETE", _path(credential_id))


def _path(credential_id: str) -> str:
    return f"/credentials/{part(credential_id)}"


def _moment(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidArgument("expires_at needs a time zone")
    return moment
