"""Verbs of `orchestrator instances` by which somebody changes one by hand: its state, its data, its version."""

from typing import Annotated
from uuid import UUID

import typer

from orchestrator.cli.instances import InstanceId, moment_of
from orchestrator.cli.session import read_json, session_of
from orchestrator.errors import InvalidArgument

Data = Annotated[str, typer.Argument(help="JSON, @file, or @- for stdin.")]


def set_state(
    context: typer.Context,
    instance: InstanceId,
    state: Annotated[str, typer.Argument(help="The new state.")],
    not_before: Annotated[str | None, typer.Option(help="It goes on then: 2030-01-31T08:00:00Z.")] = None,
) -> None:
    """Set its state, where its life cycle has an arrow; its work in progress ends."""
    session = session_of(context)
    with session.client() as client:
        client.set_state(instance, state, not_before=moment_of(not_before))
    session.say(f"instance {instance} is {state}", {"id": instance, "state": state})


def update_data(context: typer.Context, instance: InstanceId, data: Data) -> None:
    """Merge members into its context.data."""
    session = session_of(context)
    members = read_json(data, "DATA")
    if not isinstance(members, dict):
        raise InvalidArgument("what is merged into context.data has to be an object")
    with session.client() as client:
        signal = client.update_data(instance, members)
    session.say(f"instance {instance} has the data", {"id": instance, "signal_id": str(signal)})


def replace_context(
    context: typer.Context,
    instance: InstanceId,
    data: Data,
    config: Annotated[str | None, typer.Option(help="context.config: JSON, @file, or @- for stdin.")] = None,
) -> None:
    """Put other data and config in the place of its own."""
    session = session_of(context)
    with session.client() as client:
        client.replace_context(instance, read_json(data, "DATA"), read_json(config, "--config"))
    session.say(f"instance {instance} has another context", {"id": instance, "replaced": True})


def migrate(
    context: typer.Context,
    instance: InstanceId,
    target: Annotated[UUID, typer.Argument(help="Id of the version it goes over to.")],
) -> None:
    """Let a living one go over to another version."""
    session = session_of(context)
    with session.client() as client:
        done = client.migrate(instance, target)
    session.say(f"instance {instance} goes on with {target}", done.model_dump(mode="json"))


def save_checkpoint(context: typer.Context, instance: InstanceId, data: Data) -> None:
    """Keep a snapshot beside it. Prints its id."""
    session = session_of(context)
    with session.client() as client:
        made = client.save_checkpoint(instance, read_json(data, "DATA"))
    session.say(str(made), {"id": str(made)})


def prune_checkpoints(
    context: typer.Context,
    instance: InstanceId,
    keep: Annotated[int, typer.Argument(min=0, help="How many of the newest stay.")],
) -> None:
    """Delete its old snapshots."""
    session = session_of(context)
    with session.client() as client:
        count = client.prune_checkpoints(instance, keep)
    session.say(f"{count} deleted", {"count": count})


def add_to(instances: typer.Typer) -> None:
    """Let a group of commands have these."""
    for verb in (set_state, update_data, replace_context, migrate, save_checkpoint, prune_checkpoints):
        instances.command()(verb)
