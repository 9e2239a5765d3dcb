"""Verbs of `orchestrator instances` that say why one stands where it stands, and what can be done about it."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.instances import InstanceId
from orchestrator.cli.session import Output, session_of

if TYPE_CHECKING:
    from orchestrator.client import Remediation


def diagnose(context: typer.Context, instance: InstanceId) -> None:
    """Say what an instance waits for, or how it has ended, and what happens next."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        found = client.diagnose(instance)
    if session.output is Output.JSON:
        printing.print_json(found.model_dump(mode="json"))
        return
    for cause in found.causes:
        typer.echo(f"{cause.severity:<8} {cause.what}\n         {cause.name}: {cause.remedy}")
    if found.next is not None:
        when = "" if found.next.at is None else f", at {found.next.at:%Y-%m-%d %H:%M:%S}Z"
        typer.echo(f"next     {found.next.what}{when}")


def remedies(context: typer.Context, instance: InstanceId) -> None:
    """Show what can be done about an instance without losing work, and what each would do."""
    session = session_of(context)
    with session.client() as client:
        found = client.list_remediations(instance)
    session.show_rows(
        found,
        (
            ("preview", lambda each: each.preview_id),
            ("from", lambda each: each.from_state),
            ("to", lambda each: each.to_state),
            ("steps", _steps),
            ("what", lambda each: each.summary),
        ),
    )


def _steps(each: "Remediation") -> str:
    return ", ".join(f"{step.block_id} {step.state}" for step in each.steps)


def remedy(
    context: typer.Context,
    instance: InstanceId,
    preview: Annotated[str, typer.Argument(help="What `remedies` has shown.")],
) -> None:
    """Do what was previewed, if the instance still stands as it did then; exit code 4 if not."""
    session = session_of(context)
    with session.client() as client:
        state = client.apply_remediation(instance, preview)
    session.say(f"instance {instance} is {state}", {"id": instance, "state": state})


def logs(context: typer.Context, instance: InstanceId) -> None:
    """Show what its steps have logged."""
    session = session_of(context)
    with session.client() as client:
        lines = client.logs(instance)
    session.show_rows(
        lines,
        (
            ("when", lambda each: each.ts),
            ("level", lambda each: each.level),
            ("block", lambda each: each.block_id),
            ("message", lambda each: each.message),
        ),
    )


def timeline(
    context: typer.Context,
    instance: InstanceId,
    outputs: Annotated[bool, typer.Option("--outputs", help="With what was stored.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")] = 200,
    offset: Annotated[int, typer.Option(min=0, help="Lines left out before.")] = 0,
) -> None:
    """Show what it has stored in the order of time; in JSON also its changes of state."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        found = client.timeline(instance, outputs=outputs, offset=offset, limit=limit)
    if session.output is Output.JSON:
        printing.print_json(found.model_dump(mode="json"))
        return
    columns = (
        ("stored", lambda each: each.completed_at),
        ("block", lambda each: each.block_id),
        ("attempt", lambda each: each.attempt),
        ("output", lambda each: printing.compact(each.output) if outputs else ""),
    )
    session.show_rows(found.entries, columns)
    printing.note_of_more(has_more=found.has_more, offset=offset, shown=len(found.entries))


def effects(context: typer.Context, instance: InstanceId) -> None:
    """List what its steps have done outside."""
    session = session_of(context)
    with session.client() as client:
        found = client.effects(instance)
    columns = (
        ("block", lambda each: each.block_id),
        ("attempt", lambda each: each.attempt),
        ("kind", lambda each: each.kind),
        ("state", lambda each: each.state),
        ("receipt", lambda each: each.provider_receipt_id),
        ("changed", lambda each: each.updated_at),
    )
    session.show_rows(found, columns)


def compare(
    context: typer.Context,
    instance: InstanceId,
    other: Annotated[str, typer.Argument(help="Id of the other one.")],
) -> None:
    """Show as JSON in what two of them differ."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.compare(instance, other).model_dump(mode="json"))


def workbench(context: typer.Context, instance: InstanceId) -> None:
    """Show as JSON all that is needed to look into it, as it was at one moment."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.workbench(instance).model_dump(mode="json"))


def add_to(instances: typer.Typer) -> None:
    """Let a group of commands have these."""
    for verb in (diagnose, remedies, remedy, logs, timeline, effects, compare, workbench):
        instances.command()(verb)
