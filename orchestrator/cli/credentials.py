"""`orchestrator credentials`: secrets that steps name and never hold."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.session import read_text, session_of

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.client import Credential

app = typer.Typer(help="Store secrets for steps; nobody can read them again.", no_args_is_help=True)

CredentialId = Annotated[str, typer.Argument(help="Id of the credential.", metavar="ID")]
Value = Annotated[str, typer.Option(help="@file, or @- for stdin. A text itself would stay in the shell's history.")]
Expires = Annotated[datetime | None, typer.Option(help="When the value stops being good, in UTC.")]
RefreshUrl = Annotated[str | None, typer.Option(help="Where a new value of an oauth2 credential is had.")]
RefreshToken = Annotated[str | None, typer.Option(help="For that: @file, or @- for stdin.")]
Description = Annotated[str | None, typer.Option(help="For people.")]


@app.callback()
def _credentials() -> None:
    """Store secrets for steps; nobody can read them again."""


@app.command()
def create(
    context: typer.Context,
    credential: CredentialId,
    value: Value,
    name: Annotated[str | None, typer.Option(help="For people; the id if not given.")] = None,
    kind: Annotated[str, typer.Option(help="api_key, oauth2 or basic.")] = "api_key",
    expires_at: Expires = None,
    refresh_url: RefreshUrl = None,
    refresh_token: RefreshToken = None,
    description: Description = None,
) -> None:
    """Store a secret. Steps name it as credentials://ID, a field of a JSON value as credentials://ID/FIELD."""
    from orchestrator.client import Renewal  # noqa: PLC0415 - slow

    renewal = None
    if refresh_url is not None:
        if refresh_token is None or expires_at is None:
            raise typer.BadParameter("--refresh-url needs --refresh-token and --expires-at")
        token = read_text(refresh_token, "--refresh-token").strip()
        renewal = Renewal(url=refresh_url, token=token, expires_at=expires_at.replace(tzinfo=UTC))
    session = session_of(context)
    with session.client() as client:
        made = client.create_credential(
            credential,
            read_text(value, "--value").rstrip("\r\n"),
            name=name,
            kind=kind,
            expires_at=None if expires_at is None else expires_at.replace(tzinfo=UTC),
            renewal=renewal,
            description=description,
        )
    _show(session, made)


@app.command("list")
def list_all(context: typer.Context) -> None:
    """List credentials by id."""
    session = session_of(context)
    with session.client() as client:
        rows = client.credentials()
    session.show_rows(
        rows,
        (
            ("credential", lambda each: each.id),
            ("name", lambda each: each.name),
            ("kind", lambda each: each.kind),
            ("enabled", lambda each: "yes" if each.enabled else "no"),
            ("expires", lambda each: each.expires_at),
            ("renewed from", lambda each: each.refresh_url),
        ),
    )


@app.command()
def show(context: typer.Context, credential: CredentialId) -> None:
    """Show what is known of a credential beside its secrets."""
    session = session_of(context)
    with session.client() as client:
        found = client.credential(credential)
    _show(session, found)


@app.command()
def change(
    context: typer.Context,
    credential: CredentialId,
    value: Annotated[str | None, typer.Option(help="A new value: @file, or @- for stdin.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether steps may use it.")] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    expires_at: Expires = None,
    refresh_url: RefreshUrl = None,
    refresh_token: RefreshToken = None,
    description: Description = None,
) -> None:
    """Change what is given; steps that start from then on use it."""
    changes: dict[str, Any] = {
        "value": None if value is None else read_text(value, "--value").rstrip("\r\n"),
        "enabled": enabled,
        "name": name,
        "expires_at": None if expires_at is None else expires_at.replace(tzinfo=UTC),
        "refresh_url": refresh_url,
        "refresh_token": None if refresh_token is None else read_text(refresh_token, "--refresh-token").strip(),
        "description": description,
    }
    session = session_of(context)
    with session.client() as client:
        found = client.change_credential(
            credential, {member: each for member, each in changes.items() if each is not None}
        )
    _show(session, found)


@app.command()
def delete(context: typer.Context, credential: CredentialId) -> None:
    """Remove a credential; steps that name it fail from then on."""
    session = session_of(context)
    with session.client() as client:
        client.delete_credential(credential)
    session.say(f"credential {credential} was removed", {"id": credential, "deleted": True})


def _show(session: "Session", credential: "Credential") -> None:

    fields = ("id", "name", "kind", "enabled", "expires_at", "refresh_url", "has_refresh_token", "description")
    session.show_one(credential, [(field, getattr(credential, field)) for field in fields])
