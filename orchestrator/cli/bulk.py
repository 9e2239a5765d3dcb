"""`orchestrator instances bulk`: the same to all instances that match; `start-many`: one for each line of a file."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypedDict
from uuid import UUID

import typer

from orchestrator.cli.filters import Metadata, Namespace, OfVersion, States, id_of, pairs_of, split
from orchestrator.cli.instances import Sequence
from orchestrator.cli.session import read_json, read_lines, session_of

if TYPE_CHECKING:
    from orchestrator.client import Client

app = typer.Typer(help="Do the same to all instances that match.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would be done.")]


class Action(StrEnum):
    """What can be done to many instances, each by the rules of its own life cycle."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"
    SIGNAL = "signal"


class Filter(TypedDict):
    """Which instances are meant; None and nothing match all."""

    namespace: str | None
    sequence_id: UUID | None
    metadata: dict[str, str]


@app.command("do")
def act(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="What is done to each of them.")],
    state: States = None,
    sequence: OfVersion = None,
    namespace: Namespace = None,
    metadata: Metadata = None,
    signal: Annotated[str | None, typer.Option(help="Name of the signal, for `signal`.")] = None,
    payload: Annotated[str | None, typer.Option(help="What it carries: JSON, @file, or @- for stdin.")] = None,
    dry_run: DryRun = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Instances at the most.")] = 1000,
) -> None:
    """Pause, resume, cancel, retry or signal them, each as its life cycle allows."""
    session = session_of(context)
    with session.client() as client:
        done = client.batch_action(
            action,
            **_filter(client, namespace, sequence, metadata),
            states=split(state),
            signal_name=signal,
            payload=read_json(payload, "--payload"),
            dry_run=dry_run,
            limit=limit,
        )
    said = f"{done.matched} match, {done.applied} {'would be ' if dry_run else ''}done"
    session.say(f"{said}, {done.skipped} left out, {done.failed} refused", done.model_dump(mode="json"))


@app.command("set-state")
def set_state(
    context: typer.Context,
    to: Annotated[str, typer.Argument(help="The new state.", metavar="STATE")],
    state: States = None,
    sequence: OfVersion = None,
    namespace: Namespace = None,
    metadata: Metadata = None,
) -> None:
    """Set their state, whatever it is now: for repairs. `do` heeds their life cycle."""
    session = session_of(context)
    with session.client() as client:
        count = client.set_states(to, **_filter(client, namespace, sequence, metadata), states=split(state))
    session.say(f"{count} are {to}", {"count": count, "state": to})


@app.command()
def reschedule(
    context: typer.Context,
    seconds: Annotated[int, typer.Argument(help="How much later; negative for earlier, after `--`.")],
    sequence: OfVersion = None,
    namespace: Namespace = None,
    metadata: Metadata = None,
) -> None:
    """Let scheduled ones start later, or earlier."""
    session = session_of(context)
    with session.client() as client:
        count = client.reschedule(seconds, **_filter(client, namespace, sequence, metadata))
    session.say(f"{count} start {abs(seconds)} s {'earlier' if seconds < 0 else 'later'}", {"count": count})


@app.command()
def migrate(
    context: typer.Context,
    target: Annotated[UUID, typer.Argument(help="Id of the version they go over to.")],
    state: States = None,
    sequence: OfVersion = None,
    namespace: Namespace = None,
    metadata: Metadata = None,
    dry_run: DryRun = False,
) -> None:
    """Let them go over to another version."""
    session = session_of(context)
    with session.client() as client:
        done = client.migrate_many(
            target, **_filter(client, namespace, sequence, metadata), states=split(state), dry_run=dry_run
        )
    said = f"{done.matched} match, {done.migrated} {'would go' if dry_run else 'went'} over"
    session.say(f"{said}, {done.skipped} left out, {done.failed} refused", done.model_dump(mode="json"))


def start_many(
    context: typer.Context,
    sequence: Sequence,
    lines: Annotated[
        str, typer.Argument(help="A file with the context.data of one instance in each line; - for stdin.")
    ],
    namespace: Annotated[str, typer.Option(help="Where the name is looked up.")] = "default",
    version: Annotated[int | None, typer.Option(help="A version of the name instead of the newest.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key of line n is KEY:n: doing it again starts nothing twice.")
    ] = None,
) -> None:
    """Start an instance for each line of a file of JSON. Prints their ids, in that order."""
    session = session_of(context)
    data = read_lines(lines, "LINES")
    keys = None if key is None else [f"{key}:{number}" for number in range(1, len(data) + 1)]
    with session.client() as client:
        started = client.start_many(sequence, data, namespace=namespace, version=version, idempotency_keys=keys)
    columns = (("id", lambda each: each.id), ("new", lambda each: "no" if each.is_duplicate else "yes"))
    session.show_rows(started, columns)


def add_to(instances: typer.Typer) -> None:
    """Let a group of commands have these."""
    instances.command()(start_many)
    instances.add_typer(app, name="bulk")


def _filter(client: "Client", namespace: str | None, sequence: str | None, metadata: list[str] | None) -> Filter:
    return {
        "namespace": namespace,
        "sequence_id": id_of(client, sequence, namespace),
        "metadata": pairs_of(metadata),
    }
