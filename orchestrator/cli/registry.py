"""`orchestrator events`, `plugins` and `changes`: what has happened outside, what is registered, what has changed."""

from typing import Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli.session import Output, read_json, read_lines, session_of
from orchestrator.errors import InvalidArgument

events = typer.Typer(help="Tell of what has happened outside; whoever waits for it goes on.", no_args_is_help=True)
plugins = typer.Typer(help="Register programs that run handlers.", no_args_is_help=True)

PluginName = Annotated[str, typer.Argument(help="Name of the plugin.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")]
Payload = Annotated[str | None, typer.Option("--payload", "-p", help="What it carries: JSON, @file, @- for stdin.")]
Config = Annotated[str | None, typer.Option("--config", help="Its configuration: JSON, @file, or @- for stdin.")]
Description = Annotated[str | None, typer.Option("--description", help="For people.")]


# -- events ----------------------------------------------------------------------------------------------------------


@events.command()
def publish(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What has happened.")],
    correlation_key: Annotated[str, typer.Argument(help="To what it has happened.")],
    producer_event_id: Annotated[str, typer.Argument(help="Its id where it comes from: the same counts once.")],
    payload: Payload = None,
) -> None:
    """Tell of one event."""
    session = session_of(context)
    with session.client() as client:
        told = client.publish_event(name, correlation_key, producer_event_id, read_json(payload, "--payload"))
    known = ", known already" if told.duplicate else ""
    awaited = ", somebody has waited for it" if told.satisfied else ""
    session.say(f"event {told.event_id}{known}{awaited}", told.model_dump(mode="json"))


@events.command("publish-many")
def publish_many(
    context: typer.Context,
    lines: Annotated[str, typer.Argument(help="A file with one event, as POST /events takes it, a line; - for stdin.")],
) -> None:
    """Tell of up to 100 events at once."""
    session = session_of(context)
    given = read_lines(lines, "LINES")
    if not all(isinstance(each, dict) for each in given):
        raise InvalidArgument(f"{lines} has a line that is no object")
    with session.client() as client:
        told = client.publish_events(given)
    columns = (
        ("event", lambda each: each.event_id),
        ("known", lambda each: "yes" if each.duplicate else ""),
        ("awaited", lambda each: "yes" if each.satisfied else ""),
    )
    session.show_rows(told, columns)


@events.command("list")
def list_events(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only pending, consumed or expired ones.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    correlation_key: Annotated[str | None, typer.Option(help="Only those that happened to this.")] = None,
    limit: Limit = 100,
) -> None:
    """List events, the newest first."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        rows = client.list_events(status=status, name=name, correlation_key=correlation_key, limit=limit)
    columns = (
        ("event", lambda each: each.event_id),
        ("name", lambda each: each.event_name),
        ("key", lambda each: each.correlation_key),
        ("status", lambda each: each.status),
        ("told", lambda each: each.created_at),
        ("payload", lambda each: "" if each.payload is None else printing.compact(each.payload)),
    )
    session.show_rows(rows, columns)


@events.command("get")
def get_event(context: typer.Context, event: Annotated[UUID, typer.Argument(help="Id of the event.")]) -> None:
    """Show one event."""
    session = session_of(context)
    with session.client() as client:
        found = client.get_event(event)
    session.show_whole(found)


# -- plugins ---------------------------------------------------------------------------------------------------------


@plugins.command("list")
def list_plugins(context: typer.Context) -> None:
    """List plugins by name."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_plugins()
    columns = (
        ("plugin", lambda each: each.name),
        ("type", lambda each: each.plugin_type),
        ("source", lambda each: each.source),
        ("enabled", lambda each: "yes" if each.enabled else "no"),
        ("description", lambda each: each.description),
    )
    session.show_rows(rows, columns)


@plugins.command("get")
def get_plugin(context: typer.Context, plugin: PluginName) -> None:
    """Show one plugin."""
    session = session_of(context)
    with session.client() as client:
        found = client.get_plugin(plugin)
    session.show_whole(found)


@plugins.command()
def register(
    context: typer.Context,
    plugin: PluginName,
    kind: Annotated[str, typer.Argument(help="wasm or grpc.", metavar="TYPE")],
    source: Annotated[str, typer.Argument(help="Where it is: an address or a path.")],
    config: Config = None,
    description: Description = None,
) -> None:
    """Register a plugin."""
    session = session_of(context)
    with session.client() as client:
        made = client.register_plugin(
            plugin, kind, source, config=read_json(config, "--config"), description=description
        )
    session.say(f"plugin {plugin} is registered", made.model_dump(mode="json"))


@plugins.command()
def change(
    context: typer.Context,
    plugin: PluginName,
    source: Annotated[str | None, typer.Option(help="Where it is: an address or a path.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it may be used.")] = None,
    config: Config = None,
    description: Description = None,
) -> None:
    """Change what is given of a plugin."""
    given: dict[str, Any] = {
        "source": source,
        "enabled": enabled,
        "config": read_json(config, "--config"),
        "description": description,
    }
    session = session_of(context)
    with session.client() as client:
        changed = client.change_plugin(plugin, {name: value for name, value in given.items() if value is not None})
    session.say(f"plugin {plugin} is changed", changed.model_dump(mode="json"))


@plugins.command()
def remove(context: typer.Context, plugin: PluginName) -> None:
    """Remove a plugin."""
    session = session_of(context)
    with session.client() as client:
        client.remove_plugin(plugin)
    session.say(f"plugin {plugin} is removed", {"name": plugin, "removed": True})


# -- changes ---------------------------------------------------------------------------------------------------------


def changes(
    context: typer.Context,
    cursor: Annotated[str | None, typer.Option(help="Only what came behind it; see the note below the lines.")] = None,
    limit: Limit = 100,
) -> None:
    """Show what has happened to all instances of the tenant, the oldest first."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        page = client.list_changes(cursor, limit=limit)
    if session.output is Output.JSON:
        printing.print_json(page.model_dump(mode="json"))
        return
    columns = (
        ("when", lambda each: each.created_at),
        ("instance", lambda each: each.instance_id),
        ("event", lambda each: each.event_type),
        ("from", lambda each: each.from_state),
        ("to", lambda each: each.to_state),
        ("block", lambda each: each.block_id),
    )
    session.show_rows(page.changes, columns)
    if page.next_cursor is not None:
        printing.note(f"what comes next: --cursor {page.next_cursor}")
