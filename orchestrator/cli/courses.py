"""Verbs of `orchestrator instances` that change their course, and `orchestrator dlq`: failed ones and their causes."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.instances import InstanceId
from orchestrator.cli.session import read_document, read_json, session_of
from orchestrator.errors import InvalidArgument

dlq = typer.Typer(help="See failed flows and why they failed; do them again.", no_args_is_help=True)
BlockId = Annotated[str, typer.Argument(help="Id of a root block.", metavar="BLOCK")]
Data = Annotated[str | None, typer.Option("--data", "-d", help="Merged into context.data: JSON, @file, @- for stdin.")]


def inject(
    context: typer.Context,
    instance: InstanceId,
    file: Annotated[Path, typer.Argument(help='A JSON file: {"blocks": [...]}; - for standard input.')],
    position: Annotated[int | None, typer.Option(min=0, help="Among the root blocks that have not started.")] = None,
) -> None:
    """Let blocks join a living flow."""
    session = session_of(context)
    blocks = read_document(file).get("blocks")
    if not isinstance(blocks, list):
        raise InvalidArgument(f"{file} has no list of blocks: write {{'blocks': [...]}}")
    with session.client() as client:
        joined = client.inject(instance, blocks, position=position)
    session.show_one(joined, (("joined", ", ".join(joined.injected_block_ids)),))


def resume_from(context: typer.Context, instance: InstanceId, block: BlockId, data: Data = None) -> None:
    """Let a flow that is paused or has ended go on from a root block; what came behind it is dropped."""
    session = session_of(context)
    with session.client() as client:
        resumed = client.resume_from(instance, block, data=read_json(data, "--data"))
    fields = (("state", resumed.state), ("from", resumed.resumed_from), ("outputs dropped", resumed.outputs_deleted))
    session.show_one(resumed, fields)


def fork(
    context: typer.Context,
    instance: InstanceId,
    block: BlockId,
    data: Data = None,
    live: Annotated[bool, typer.Option("--live", help="With effects outside; a dry run without.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would run.")] = False,
) -> None:
    """Start a copy of a flow that goes on from a root block."""
    session = session_of(context)
    with session.client() as client:
        if preview:
            shown = client.preview_fork(instance, block)
            fields = (("taken over", ", ".join(shown.copied_blocks)), ("runs", ", ".join(shown.rerun_blocks)))
            session.show_one(shown, fields)
            return
        made = client.fork(instance, block, data=read_json(data, "--data"), dry_run=not live)
    session.show_one(made, (("id", made.id), ("runs", ", ".join(made.rerun_blocks))))


def children(context: typer.Context, instance: InstanceId) -> None:
    """List the instances that its blocks have started."""
    session = session_of(context)
    with session.client() as client:
        rows = client.children(instance)
    session.show_rows(rows, (("id", lambda each: each.id), ("state", lambda each: each.state)))


def checkpoints(
    context: typer.Context,
    instance: InstanceId,
    latest: Annotated[bool, typer.Option("--latest", help="Only the newest, whole, as JSON.")] = False,
) -> None:
    """List what was kept of it, the newest first."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        if latest:
            printing.print_json(client.latest_checkpoint(instance).model_dump(mode="json"))
            return
        rows = client.list_checkpoints(instance)
    columns = (
        ("id", lambda each: each.id),
        ("kept", lambda each: each.created_at),
        ("data", lambda each: printing.compact(each.checkpoint_data)),
    )
    session.show_rows(rows, columns)


def add_to(instances: typer.Typer) -> None:
    """Let a group of commands have these."""
    for verb in (inject, resume_from, fork, children, checkpoints):
        instances.command()(verb)


@dlq.command("list")
def list_all(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Lines left out before.")] = 0,
) -> None:
    """List failed flows, the newest change first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.dead_letters(offset=offset, limit=limit)
    columns = (
        ("id", lambda each: each.id),
        ("at", lambda each: each.context.runtime.current_step),
        ("sequence", lambda each: each.sequence_id),
        ("updated", lambda each: each.updated_at),
    )
    session.show_rows(rows, columns)


@dlq.command()
def groups(context: typer.Context) -> None:
    """Group failed flows by cause, the largest group first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.failure_groups()
    columns = (
        ("cause", lambda each: each.fingerprint),
        ("flows", lambda each: each.count),
        ("blocks", lambda each: ", ".join(each.blocks)),
        ("last", lambda each: each.last_occurrence),
        ("sample", lambda each: each.sample_instance_ids[0] if each.sample_instance_ids else ""),
        ("message", lambda each: each.sample_message),
    )
    session.show_rows(rows, columns)


@dlq.command()
def retry(
    context: typer.Context,
    cause: Annotated[str, typer.Argument(help="What `dlq groups` shows.")],
    verified: Annotated[str | None, typer.Option(help="A flow of it that has completed since: do all again.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Do all again without one.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Flows at the most.")] = 1000,
) -> None:
    """Do one flow of a cause again, as a sample, or all of them."""
    session = session_of(context)
    with session.client() as client:
        done = client.retry_group(cause, verified=verified, force=force, limit=limit)
    session.say(f"{done.retried} open again, {done.skipped} left out", done.model_dump(mode="json"))
