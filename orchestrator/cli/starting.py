"""`orchestrator triggers` and `orchestrator cron`: what starts flows."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli.session import Output, Session, read_json, session_of
from orchestrator.errors import InvalidArgument

if TYPE_CHECKING:
    from orchestrator.client import Schedule, Trigger

triggers = typer.Typer(help="Names under which flows are started from outside.", no_args_is_help=True)
cron = typer.Typer(help="Start flows on a schedule.", no_args_is_help=True)

Slug = Annotated[str, typer.Argument(help="Slug of the trigger.")]
ScheduleId = Annotated[UUID, typer.Argument(help="Id of the schedule.", metavar="ID")]
Namespace = Annotated[str, typer.Option(help="Namespace of the sequence.")]
Version = Annotated[int | None, typer.Option(min=1, help="Version of the sequence; the newest if not given.")]
Secret = Annotated[str | None, typer.Option(envvar="ORCHESTRATOR_TRIGGER_SECRET", help="Its secret.")]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="Switch it on or off.")]
Config = Annotated[str | None, typer.Option(help="JSON, @file, or @- for stdin.")]
Metadata = Annotated[str | None, typer.Option(help="Of the instances: JSON, @file, or @- for stdin.")]
Expression = Annotated[str, typer.Argument(help="5, 6 (seconds first) or 7 (year last) fields.")]
Zone = Annotated[str | None, typer.Option(help="Whose local times are meant, such as Europe/Berlin.")]
Overlap = Annotated[
    str | None,
    typer.Option(help="While an earlier flow goes on: allow, skip, buffer_one or cancel_previous."),
]


# -- triggers --------------------------------------------------------------------------------------------------------


@triggers.command("list")
def list_triggers(context: typer.Context) -> None:
    """List triggers by slug."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_triggers()
    session.show_rows(
        rows,
        (
            ("slug", lambda each: each.slug),
            ("sequence", lambda each: each.sequence_name),
            ("version", lambda each: each.version or "newest"),
            ("type", lambda each: each.trigger_type),
            ("enabled", lambda each: _yes(each.enabled)),
            ("secret", lambda each: _yes(each.secret is not None)),
        ),
    )


@triggers.command("get")
def get_trigger(context: typer.Context, slug: Slug) -> None:
    """Show a trigger; its secret is never shown."""
    session = session_of(context)
    with session.client() as client:
        _show_trigger(session, client.get_trigger(slug))


@triggers.command("create")
def create_trigger(
    context: typer.Context,
    slug: Slug,
    sequence: Annotated[str, typer.Argument(help="Name of the sequence.")],
    namespace: Namespace = "default",
    version: Version = None,
    secret: Secret = None,
    trigger_type: Annotated[str, typer.Option("--type", help="webhook, event, nats, …")] = "webhook",
    config: Config = None,
) -> None:
    """Make a trigger."""
    session = session_of(context)
    with session.client() as client:
        made = client.create_trigger(
            slug,
            sequence,
            namespace=namespace,
            version=version,
            secret=secret,
            trigger_type=trigger_type,
            config=read_json(config, "--config"),
        )
    _show_trigger(session, made)


@triggers.command("update")
def update_trigger(
    context: typer.Context,
    slug: Slug,
    enabled: Enabled = None,
    version: Version = None,
    secret: Secret = None,
    overlap_secs: Annotated[
        int | None, typer.Option(min=0, help="How long the secret before is as good as the new one.")
    ] = None,
    config: Config = None,
) -> None:
    """Change what is given."""
    given = {"enabled": enabled, "version": version, "secret": secret, "config": read_json(config, "--config")}
    changes = _changes({**given, "overlap_secs": overlap_secs})
    session = session_of(context)
    with session.client() as client:
        _show_trigger(session, client.change_trigger(slug, changes))


@triggers.command("delete")
def delete_trigger(context: typer.Context, slug: Slug) -> None:
    """Remove a trigger; flows that it has started go on."""
    session = session_of(context)
    with session.client() as client:
        client.delete_trigger(slug)
    session.say(f"trigger {slug} is deleted", {"slug": slug, "deleted": True})


@triggers.command("fire")
def fire_trigger(
    context: typer.Context,
    slug: Slug,
    payload: Annotated[str | None, typer.Option(help="Data of the flow: JSON, @file, or @- for stdin.")] = None,
    secret: Secret = None,
) -> None:
    """Start a flow. Prints its id."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        fired = client.fire_trigger(slug, read_json(payload, "--payload"), secret=secret)
    if session.output is Output.JSON:
        printing.print_json(fired.model_dump(mode="json"))
        return
    if fired.deduplicated:
        printing.note("this payload has started a flow before")
    typer.echo(fired.instance_id)


def _show_trigger(session: Session, trigger: "Trigger") -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    fields = (
        ("slug", trigger.slug),
        ("sequence", trigger.sequence_name),
        ("version", trigger.version or "newest"),
        ("namespace", trigger.namespace),
        ("type", trigger.trigger_type),
        ("enabled", _yes(trigger.enabled)),
        ("secret", _yes(trigger.secret is not None)),
        ("the one before, until", trigger.previous_secret_until),
        ("config", None if trigger.config is None else printing.compact(trigger.config)),
        ("created", trigger.created_at),
        ("changed", trigger.updated_at),
    )
    session.show_one(trigger, fields)


# -- schedules -------------------------------------------------------------------------------------------------------


@cron.command("list")
def list_schedules(context: typer.Context) -> None:
    """List schedules, the oldest first, disabled ones too."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_schedules()
    session.show_rows(
        rows,
        (
            ("schedule", lambda each: each.id),
            ("expression", lambda each: each.cron_expr),
            ("zone", lambda each: each.timezone),
            ("sequence", lambda each: each.sequence_id),
            ("enabled", lambda each: _yes(each.enabled)),
            ("overlap", lambda each: each.overlap_policy),
            ("next", lambda each: each.next_fire_at if each.enabled else None),
            ("last", lambda each: each.last_triggered_at),
            ("skipped", lambda each: each.skipped_fires),
        ),
    )


@cron.command("get")
def get_schedule(context: typer.Context, schedule: ScheduleId) -> None:
    """Show a schedule."""
    session = session_of(context)
    with session.client() as client:
        _show_schedule(session, client.get_schedule(schedule))


@cron.command("create")
def create_schedule(
    context: typer.Context,
    sequence: Annotated[str, typer.Argument(help="Name of the sequence, or id of a version.")],
    expression: Expression,
    namespace: Namespace = "default",
    version: Version = None,
    timezone: Zone = None,
    overlap: Overlap = None,
    metadata: Metadata = None,
    enabled: Enabled = None,
) -> None:
    """Start a version of a sequence at the moments of a cron expression. Prints the schedule's id."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        definition = client.get_sequence(sequence, namespace=namespace, version=version)
        made = client.create_schedule(
            definition.id,
            expression,
            namespace=definition.namespace,
            timezone=timezone or "UTC",
            metadata=read_json(metadata, "--metadata"),
            enabled=enabled is not False,
            overlap_policy=overlap or "allow",
        )
    if session.output is Output.JSON:
        printing.print_json(made.model_dump(mode="json"))
        return
    printing.note(f"version {definition.version} of {definition.name}, next at {made.next_fire_at}")
    typer.echo(made.id)


@cron.command("update")
def update_schedule(
    context: typer.Context,
    schedule: ScheduleId,
    expression: Annotated[str | None, typer.Option(help="Another expression.")] = None,
    timezone: Zone = None,
    overlap: Overlap = None,
    metadata: Metadata = None,
    enabled: Enabled = None,
) -> None:
    """Change what is given."""
    given = {
        "cron_expr": expression,
        "timezone": timezone,
        "overlap_policy": overlap,
        "metadata": read_json(metadata, "--metadata"),
        "enabled": enabled,
    }
    changes = _changes(given)
    session = session_of(context)
    with session.client() as client:
        _show_schedule(session, client.change_schedule(schedule, changes))


@cron.command("delete")
def delete_schedule(context: typer.Context, schedule: ScheduleId) -> None:
    """Remove a schedule; flows that it has started go on."""
    session = session_of(context)
    with session.client() as client:
        client.delete_schedule(schedule)
    session.say(f"schedule {schedule} is deleted", {"id": str(schedule), "deleted": True})


@cron.command("next-fires")
def next_fires(
    context: typer.Context,
    schedule: ScheduleId,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=50, help="How many.")] = 5,
) -> None:
    """List the next moments that a schedule names, in UTC."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        moments = client.next_fires(schedule, count)
    if session.output is Output.JSON:
        printing.print_json(list(moments))
    else:
        for moment in moments:
            typer.echo(f"{moment:%Y-%m-%d %H:%M:%S}Z")


def _show_schedule(session: Session, schedule: "Schedule") -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    fields = (
        ("schedule", schedule.id),
        ("sequence", schedule.sequence_id),
        ("namespace", schedule.namespace),
        ("expression", schedule.cron_expr),
        ("zone", schedule.timezone),
        ("enabled", _yes(schedule.enabled)),
        ("overlap", schedule.overlap_policy),
        ("next", schedule.next_fire_at if schedule.enabled else None),
        ("last", schedule.last_triggered_at),
        ("skipped", f"{schedule.skipped_fires} times" if schedule.skipped_fires else None),
        ("last skipped", schedule.last_skipped_at),
        ("metadata", None if schedule.metadata is None else printing.compact(schedule.metadata)),
    )
    session.show_one(schedule, fields)


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise InvalidArgument("nothing to change was given")
    return changes


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
