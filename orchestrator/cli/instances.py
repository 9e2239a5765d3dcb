"""`orchestrator instances`: start them, watch them, change their course."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.filters import Metadata, Namespace, OfVersion, States, id_of, pairs_of
from orchestrator.cli.session import Output, Session, read_json, session_of

if TYPE_CHECKING:
    from orchestrator.client import Client, Instance

app = typer.Typer(help="Start instances, watch them, change their course.", no_args_is_help=True)

Sequence = Annotated[str, typer.Argument(help="A name, for its newest version, or the id of a version.")]
InstanceId = Annotated[str, typer.Argument(help="Id of the instance.", metavar="ID")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait at the most; then exit code 6.")]


class Priority(StrEnum):
    """How urgent an instance is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


@app.command()
def start(
    context: typer.Context,
    sequence: Sequence,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="context.data: JSON, @file, or @- for stdin.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="context.config: JSON, @file, or @- for stdin.")] = None,
    metadata: Annotated[str | None, typer.Option(help="An object to find the instance by: JSON or @file.")] = None,
    namespace: Annotated[str, typer.Option(help="Where the name is looked up.")] = "default",
    version: Annotated[int | None, typer.Option(help="A version of the name instead of the newest.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key starts nothing twice.")] = None,
    priority: Annotated[Priority, typer.Option(case_sensitive=False, help="How urgent it is.")] = Priority.NORMAL,
    timezone: Annotated[str, typer.Option(help="For windows and times of day, such as Europe/Berlin.")] = "UTC",
    not_before: Annotated[str | None, typer.Option(help="Start then: 2030-01-31T08:00:00Z.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run no step that has effects outside.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end; exit code 1 if it fails.")] = False,
    timeout: Timeout = None,
) -> None:
    """Start an instance. Prints its id, or with --wait what became of it."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow
    from orchestrator.client import StartOptions  # noqa: PLC0415 - slow

    session = session_of(context)
    options = StartOptions(
        config=read_json(config, "--config"),
        metadata=read_json(metadata, "--metadata"),
        priority=priority.capitalize(),
        timezone=timezone,
        not_before=moment_of(not_before),
        dry_run=dry_run,
    )
    with session.client() as client:
        started = client.start(
            sequence,
            read_json(data, "--data"),
            namespace=namespace,
            version=version,
            idempotency_key=key,
            options=options,
        )
        if started.is_duplicate:
            printing.note("an instance with this key exists; this is its id")
        if wait:
            _wait(session, client, str(started.id), timeout)
        elif session.output is Output.JSON:
            printing.print_json(started.model_dump(mode="json"))
        else:
            typer.echo(started.id)


@app.command()
def wait(context: typer.Context, instance: InstanceId, timeout: Timeout = None) -> None:
    """Wait until an instance has ended: exit code 0 if it completed, 1 if not, 6 if the time is over."""
    session = session_of(context)
    with session.client() as client:
        _wait(session, client, instance, timeout)


def _wait(session: Session, client: "Client", instance_id: str, timeout: float | None) -> None:
    from orchestrator.cli.waiting import exit_by_state, wait_for  # noqa: PLC0415 - slow

    instance = wait_for(client, instance_id, timeout)
    _show(session.output, instance)
    exit_by_state(client, instance)


@app.command()
def watch(context: typer.Context, instance: InstanceId) -> None:
    """Show what happens to an instance as it happens, until it has ended; in JSON one line for each event."""
    session = session_of(context)
    with session.client() as client:
        for event in client.follow(instance):
            session.show_event(event)


@app.command("get")
def get_one(context: typer.Context, instance: InstanceId) -> None:
    """Show one instance."""
    session = session_of(context)
    with session.client() as client:
        _show(session.output, client.get(instance))


@app.command("list")
def list_all(
    context: typer.Context,
    state: States = None,
    sequence: OfVersion = None,
    namespace: Namespace = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Lines left out before.")] = 0,
) -> None:
    """List instances, the newest change first."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        page = client.list(
            states=state,
            sequence_id=id_of(client, sequence, namespace),
            namespace=namespace,
            metadata=pairs_of(metadata),
            offset=offset,
            limit=limit,
        )
    session.show_rows(
        page.items,
        (
            ("id", lambda each: each.id),
            ("state", lambda each: each.state),
            ("at", lambda each: "" if each.state.is_terminal else each.context.runtime.current_step),
            ("steps", lambda each: each.context.runtime.total_steps_executed),
            ("tenant", lambda each: each.tenant_id),
            ("sequence", lambda each: each.sequence_id),
            ("updated", lambda each: each.updated_at),
        ),
    )
    printing.note_of_more(has_more=page.has_more, offset=offset, shown=len(page.items))


@app.command()
def outputs(
    context: typer.Context,
    instance: InstanceId,
    block: Annotated[str | None, typer.Option(help="Only the newest output of this block, whole, as JSON.")] = None,
) -> None:
    """Show what the blocks have stored, in that order."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        if block is not None:
            printing.print_json(client.output(instance, block))
            return
        rows = client.outputs(instance)
    session.show_rows(
        rows,
        (
            ("block", lambda each: each.block_id),
            ("attempt", lambda each: each.attempt),
            ("bytes", lambda each: each.output_size),
            ("stored", lambda each: each.created_at),
            ("output", lambda each: printing.compact(each.output)),
        ),
    )


@app.command()
def tree(context: typer.Context, instance: InstanceId) -> None:
    """Show the state of every block."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        nodes = client.tree(instance)
    if session.output is Output.JSON:
        printing.print_json([node.model_dump(mode="json") for node in nodes])
    else:
        printing.show_tree(nodes)


@app.command()
def audit(context: typer.Context, instance: InstanceId) -> None:
    """Show the changes of an instance, the newest first."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        rows = client.audit(instance)
    session.show_rows(
        rows,
        (
            ("when", lambda each: each.created_at),
            ("event", lambda each: each.event_type),
            ("from", lambda each: each.from_state),
            ("to", lambda each: each.to_state),
            ("block", lambda each: each.block_id),
            ("details", lambda each: "" if not each.details else printing.compact(each.details)),
        ),
    )


@app.command()
def attempts(context: typer.Context, instance: InstanceId) -> None:
    """Show every execution of its steps, failed and lost ones too."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        rows = client.attempts(instance)
    session.show_rows(
        rows,
        (
            ("block", lambda each: each.block_id),
            ("iteration", lambda each: ".".join(map(str, each.iteration))),
            ("attempt", lambda each: each.attempt),
            ("handler", lambda each: each.handler),
            ("queue", lambda each: each.queue),
            ("outcome", lambda each: each.outcome),
            ("ended", lambda each: each.ended_at),
            ("seconds", lambda each: _seconds(each.claimed_at, each.ended_at)),
            ("error", lambda each: "" if each.error is None else printing.compact(each.error)),
        ),
    )


@app.command()
def retry(context: typer.Context, instance: InstanceId) -> None:
    """Open a failed instance again, at its failed step."""
    _change(context, instance, "is open again", lambda client: client.retry(instance))


@app.command()
def pause(context: typer.Context, instance: InstanceId) -> None:
    """Let no new step begin; those that run end."""
    _change(context, instance, "pauses", lambda client: client.pause(instance))


@app.command()
def resume(context: typer.Context, instance: InstanceId) -> None:
    """Let a paused instance go on."""
    _change(context, instance, "goes on", lambda client: client.resume(instance))


@app.command()
def cancel(context: typer.Context, instance: InstanceId) -> None:
    """End an instance early, with its on_cancel blocks."""
    _change(context, instance, "is being cancelled", lambda client: client.cancel(instance))


def _change(context: typer.Context, instance_id: str, done: str, change: Callable[["Client"], Any]) -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        change(client)
        if session.output is Output.JSON:
            printing.print_json(client.get(instance_id).model_dump(mode="json"))
        else:
            typer.echo(f"instance {instance_id} {done}")


def _show(output: Output, instance: "Instance") -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    runtime = instance.context.runtime
    printing.show_one(
        output,
        instance,
        (
            ("id", instance.id),
            ("state", instance.state),
            ("parked", instance.parked_reason),
            ("at", None if instance.state.is_terminal else runtime.current_step),
            ("goes on", instance.next_fire_at),
            ("steps", runtime.total_steps_executed),
            ("sequence", instance.sequence_id),
            ("tenant", f"{instance.tenant_id}, namespace {instance.namespace}"),
            ("priority", instance.priority),
            ("parent", instance.parent_instance_id),
            ("created", instance.created_at),
            ("updated", instance.updated_at),
            ("metadata", None if instance.metadata is None else printing.compact(instance.metadata)),
            ("data", printing.compact(instance.data)),
        ),
    )


def moment_of(written: str | None) -> datetime | None:
    """Read a moment with its zone; None stays None. Raises typer.BadParameter."""
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError as error:
        raise typer.BadParameter(
            f"{written!r} is no time such as 2030-01-31T08:00:00Z", param_hint="--not-before"
        ) from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{written!r} needs a zone: write {written}Z for UTC", param_hint="--not-before")
    return moment


def _seconds(began: datetime | None, ended: datetime) -> str:
    return "" if began is None else f"{(ended - began).total_seconds():.3f}"
