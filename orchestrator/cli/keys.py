"""`orchestrator keys`: who may call the server. Needs its root key."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestrator.cli.session import Output, session_of

app = typer.Typer(help="Make, list and revoke keys of tenants.", no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """Make, list and revoke keys of tenants; the root key is needed for it."""


@app.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for; shown in lists.")] = "",
    capability: Annotated[
        list[str] | None,
        typer.Option(help="operator, worker, publisher, approver or auditor; may be repeated, none is operator."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires; never if not given.")
    ] = None,
) -> None:
    """Make a key of the tenant. Its secret goes to standard output, once."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with session.client() as client:
        key = client.create_key(name=name, capabilities=capability or (), expires_at=expires_at)
    if session.output is Output.JSON:
        printing.print_json(key.model_dump(mode="json"))
        return
    typer.echo(key.secret)
    until = "" if key.expires_at is None else f", until {key.expires_at:%Y-%m-%d %H:%M}Z"
    printing.note(f"key {key.id} of tenant {key.tenant_id}: {', '.join(key.capabilities)}{until}; keep the secret now")


@app.command("list")
def list_keys(context: typer.Context) -> None:
    """List the keys of the tenant, the newest first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_keys()
    session.show_rows(
        rows,
        (
            ("key", lambda each: each.id),
            ("name", lambda each: each.name),
            ("capabilities", lambda each: ", ".join(each.capabilities)),
            ("revoked", lambda each: "yes" if each.revoked else "no"),
            ("expires", lambda each: each.expires_at),
            ("last used", lambda each: each.last_used_at),
            ("created", lambda each: each.created_at),
        ),
    )


@app.command("revoke")
def revoke_key(context: typer.Context, key: Annotated[str, typer.Argument(help="Its id, ak_…")]) -> None:
    """Let a key open nothing from now on."""
    session = session_of(context)
    with session.client() as client:
        client.revoke_key(key)
    session.say(f"key {key} is revoked", {"id": key, "revoked": True})
