"""`orchestrator queues`, `workers` and `tasks`: what waits where, and who does it."""

from typing import Annotated
from uuid import UUID

import typer

from orchestrator.cli.session import session_of

queues = typer.Typer(help="See what waits on each queue.", no_args_is_help=True)
workers = typer.Typer(help="See who works.", no_args_is_help=True)
tasks = typer.Typer(help="See steps in the hands of external workers.", no_args_is_help=True)

OWN_COLUMNS = ("ready", "claimed")
"""States of steps with a column of their own; the others share one."""


@queues.callback()
def _queues() -> None:
    """See what waits on each queue."""


@queues.command("list")
def list_queues(context: typer.Context) -> None:
    """List queues with open steps or living workers: the backlog by state, and who serves them."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        rows = client.queues()
    session.show_rows(
        rows,
        (
            ("queue", lambda each: each.queue),
            ("workers", lambda each: each.workers),
            ("slots", lambda each: each.slots),
            *((state, lambda each, state=state: each.states.get(state, 0)) for state in OWN_COLUMNS),
            (
                "waiting for something",
                lambda each: ", ".join(
                    f"{state} {count}" for state, count in each.states.items() if state not in OWN_COLUMNS
                ),
            ),
            ("oldest ready", lambda each: printing.age(each.oldest_ready_at)),
        ),
    )


@workers.callback()
def _workers() -> None:
    """See who works."""


@workers.command("list")
def list_workers(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that have not been heard of lately.")] = False,
) -> None:
    """List workers: processes of ours and external ones that poll."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        rows = client.workers(include_stale=every)
    session.show_rows(
        rows,
        (
            ("worker", lambda each: each.worker_id),
            ("queues", lambda each: ", ".join(each.queues)),
            ("in flight", lambda each: each.in_flight),
            ("alive", lambda each: "yes" if each.alive else "no"),
            ("seen", lambda each: f"{printing.age(each.last_seen_at)} ago"),
            ("handlers", lambda each: ", ".join(each.handlers)),
        ),
    )


@tasks.command("list")
def list_tasks(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="pending, claimed, completed or failed.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    handler: Annotated[str | None, typer.Option(help="Only this handler.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Lines left out before.")] = 0,
) -> None:
    """List steps whose handler runs outside, the newest first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.tasks(state=state, queue=queue, handler=handler, offset=offset, limit=limit)
    session.show_rows(
        rows,
        (
            ("task", lambda each: each.id),
            ("state", lambda each: each.state),
            ("handler", lambda each: each.handler_name),
            ("queue", lambda each: each.queue_name),
            ("worker", lambda each: each.worker_id),
            ("attempt", lambda each: each.attempt),
            ("instance", lambda each: each.instance_id),
            ("block", lambda each: each.block_id),
            ("created", lambda each: each.created_at),
            ("error", lambda each: each.error_message),
        ),
    )


@tasks.command("events")
def task_events(context: typer.Context, task: Annotated[UUID, typer.Argument(help="Id of the task.")]) -> None:
    """Show what has happened to a task: claims, leases taken back, late reports, its end."""
    session = session_of(context)
    with session.client() as client:
        rows = client.task_events(task)
    session.show_rows(
        rows,
        (
            ("when", lambda each: each.created_at),
            ("event", lambda each: each.event),
            ("claim", lambda each: each.claim_epoch),
            ("worker", lambda each: each.worker_id),
            ("reason", lambda each: each.reason),
        ),
    )


@tasks.command()
def stats(
    context: typer.Context,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    handler: Annotated[str | None, typer.Option(help="Only this handler.")] = None,
) -> None:
    """Count tasks by state and by handler, and name the workers that hold some."""
    session = session_of(context)
    with session.client() as client:
        session.show_whole(client.task_stats(queue=queue, handler=handler))
