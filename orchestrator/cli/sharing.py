"""`orchestrator sessions`, data that flows share, and `orchestrator admin`, the processes of an installation."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.session import Output, Session, read_json, session_of

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.client import Session as Shared

sessions = typer.Typer(help="Keep data that several flows share.", no_args_is_help=True)
admin = typer.Typer(help="See and end the processes that do the work; needs the root key.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="Key of the session.", metavar="KEY")]


@sessions.command()
def create(
    context: typer.Context,
    key: Key,
    data: Annotated[str | None, typer.Option("--data", "-d", help="JSON, @file, or @- for stdin.")] = None,
) -> None:
    """Make a session under a key of your own. Prints its id."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        made = client.create_session(key, read_json(data, "--data"))
    if session.output is Output.JSON:
        printing.print_json(made.model_dump(mode="json"))
    else:
        typer.echo(made.id)


@sessions.command()
def get(context: typer.Context, key: Key) -> None:
    """Show a session."""
    session = session_of(context)
    with session.client() as client:
        _show(session, client.find_session(key))


@sessions.command("set-data")
def set_data(
    context: typer.Context,
    key: Key,
    data: Annotated[str, typer.Argument(help="JSON, @file, or @- for stdin.")],
) -> None:
    """Put other data in the place of a session's."""
    session = session_of(context)
    with session.client() as client:
        client.replace_session_data(client.find_session(key).id, read_json(data, "DATA"))
        _show(session, client.find_session(key))


@sessions.command("set-state")
def set_state(
    context: typer.Context,
    key: Key,
    state: Annotated[str, typer.Argument(help="active, paused, completed or expired.")],
) -> None:
    """Set the state of a session; only an active one takes new flows."""
    session = session_of(context)
    with session.client() as client:
        client.set_session_state(client.find_session(key).id, state)
        _show(session, client.find_session(key))


@sessions.command()
def instances(context: typer.Context, key: Key) -> None:
    """List the flows of a session."""
    session = session_of(context)
    with session.client() as client:
        rows = client.session_instances(client.find_session(key).id)
    columns = (
        ("id", lambda each: each.id),
        ("state", lambda each: each.state),
        ("updated", lambda each: each.updated_at),
    )
    session.show_rows(rows, columns)


@sessions.command()
def cancel(context: typer.Context, key: Key) -> None:
    """Cancel all flows of a session that have not ended."""
    session = session_of(context)
    with session.client() as client:
        _counted(session, client, key)


def _counted(session: Session, client: "Client", key: str) -> None:
    count = client.cancel_session(client.find_session(key).id)
    session.say(f"{count} cancelled", {"count": count})


@admin.command()
def nodes(context: typer.Context) -> None:
    """List worker processes."""
    _nodes(session_of(context), None)


@admin.command()
def drain(context: typer.Context, node: Annotated[str, typer.Argument(help="Id of a node.", metavar="ID")]) -> None:
    """Let a worker process take no more steps, end those it runs, and stop."""
    _nodes(session_of(context), node)


def _nodes(session: Session, drained: str | None) -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session.client() as client:
        rows = client.nodes() if drained is None else (client.drain_node(drained),)
    columns: tuple[tuple[str, Any], ...] = (
        ("id", lambda each: each.id),
        ("name", lambda each: each.name),
        ("status", lambda each: each.status),
        ("queues", lambda each: ", ".join(each.queues)),
        ("slots", lambda each: each.slots),
        ("seen", lambda each: f"{printing.age(each.last_heartbeat_at)} ago"),
    )
    session.show_rows(rows, columns)


def _show(session: Session, shared: "Shared") -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    fields = (
        ("id", shared.id),
        ("key", shared.session_key),
        ("state", shared.state),
        ("updated", shared.updated_at),
        ("expires", shared.expires_at),
        ("data", printing.compact(shared.data)),
    )
    session.show_one(shared, fields)
