"""`orchestrator webhooks`, `dispatch`, `commands`, `pins`, `routes`: what leaves the engine, and who gets what."""

from typing import Annotated
from uuid import UUID

import typer

from orchestrator.cli.session import read_json, session_of

webhooks = typer.Typer(help="See events that were not sent, and send them again.", no_args_is_help=True)
dispatch = typer.Typer(help="Have tasks of queues pushed to addresses.", no_args_is_help=True)
commands = typer.Typer(help="Tell workers something.", no_args_is_help=True)
pins = typer.Typer(help="Keep tasks from workers that are too old.", no_args_is_help=True)
routes = typer.Typer(help="Lead new tasks to other queues.", no_args_is_help=True)

WebhookId = Annotated[UUID, typer.Argument(help="Id of the event.")]
Queue = Annotated[str, typer.Argument(help="Name of the queue.")]
Handler = Annotated[str, typer.Argument(help="Name of the handler.")]
RuleId = Annotated[UUID, typer.Argument(help="Id of the rule.")]
WorkerId = Annotated[str, typer.Argument(help="Id of the worker.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")]


# -- webhooks --------------------------------------------------------------------------------------------------------


@webhooks.command("list")
def list_webhooks(context: typer.Context, limit: Limit = 100) -> None:
    """List events that were not sent yet, the oldest first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_webhooks(limit=limit)
    session.show_rows(
        rows,
        (
            ("webhook", lambda each: each.id),
            ("status", lambda each: each.status),
            ("event", lambda each: each.event_type),
            ("instance", lambda each: each.instance_id),
            ("tries", lambda each: each.attempts),
            ("url", lambda each: each.url),
            ("error", lambda each: each.last_error),
        ),
    )


@webhooks.command()
def preview(context: typer.Context, webhook: WebhookId) -> None:
    """Say what sending an event again would send."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.preview_redelivery(webhook).model_dump(mode="json"))


@webhooks.command()
def redeliver(context: typer.Context, webhook: WebhookId) -> None:
    """Send an event now."""
    session = session_of(context)
    with session.client() as client:
        delivery = client.redeliver(webhook)
    session.say(f"webhook {webhook} is sent: delivery {delivery}", {"delivery_id": str(delivery)})


@webhooks.command("delete")
def delete_webhook(context: typer.Context, webhook: WebhookId) -> None:
    """Drop an event that was not sent."""
    session = session_of(context)
    with session.client() as client:
        client.delete_webhook(webhook)
    session.say(f"webhook {webhook} is deleted", {"id": str(webhook), "deleted": True})


@webhooks.command()
def deliveries(
    context: typer.Context,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that nobody has taken.")] = False,
    limit: Limit = 100,
) -> None:
    """List deliveries of the last week, the one tried last first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_deliveries(delivered=False if failed else None, limit=limit)
    session.show_rows(
        rows,
        (
            ("delivery", lambda each: each.delivery_id),
            ("delivered", lambda each: "yes" if each.delivered else "no"),
            ("event", lambda each: each.event_type),
            ("instance", lambda each: each.instance_id),
            ("tries", lambda each: each.attempts),
            ("last", lambda each: each.last_attempted_at),
            ("error", lambda each: each.last_error_class),
        ),
    )


@webhooks.command()
def attempts(context: typer.Context, delivery: Annotated[UUID, typer.Argument(help="Id of the delivery.")]) -> None:
    """Show the tries of one delivery, in order."""
    session = session_of(context)
    with session.client() as client:
        rows = client.get_delivery(delivery)
    session.show_rows(
        rows,
        (
            ("try", lambda each: each.attempt_number),
            ("at", lambda each: each.attempted_at),
            ("ms", lambda each: each.duration_ms),
            ("status", lambda each: each.status_code),
            ("error", lambda each: each.error_class),
            ("said", lambda each: each.error_excerpt),
        ),
    )


# -- push queues -----------------------------------------------------------------------------------------------------


@dispatch.command("push")
def push_queue(
    context: typer.Context,
    queue: Queue,
    url: Annotated[str, typer.Argument(help="Where its tasks are posted.")],
    secret: Annotated[str | None, typer.Option(envvar="ORCHESTRATOR_PUSH_SECRET", help="Signs what is posted.")] = None,
    second_secret: Annotated[
        str | None,
        typer.Option(envvar="ORCHESTRATOR_SECOND_PUSH_SECRET", help="Signs it, too, while secrets are changed."),
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="A refusal is the failure of the task.")] = False,
) -> None:
    """Have the tasks of a queue posted to an address."""
    session = session_of(context)
    with session.client() as client:
        made = client.push_queue(queue, url, secret=secret, second_secret=second_secret, sync=sync)
    session.say(f"tasks of {queue} are pushed to {url}", made.model_dump(mode="json"))


@dispatch.command("poll")
def poll_queue(context: typer.Context, queue: Queue) -> None:
    """Let the tasks of a queue be polled only."""
    session = session_of(context)
    with session.client() as client:
        client.poll_queue(queue)
    session.say(f"tasks of {queue} are polled only", {"queue_name": queue, "mode": "poll"})


@dispatch.command("list")
def list_dispatch(context: typer.Context) -> None:
    """List the queues of which something was said."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_dispatch()
    session.show_rows(
        rows,
        (
            ("queue", lambda each: each.queue_name),
            ("mode", lambda each: each.mode),
            ("url", lambda each: each.push_url),
            ("sync", lambda each: "yes" if each.sync else "no"),
        ),
    )


# -- workers ---------------------------------------------------------------------------------------------------------


@commands.command("send")
def tell_worker(
    context: typer.Context,
    worker: WorkerId,
    command: Annotated[str, typer.Argument(help="drain, reload, ping or place.")],
    payload: Annotated[str | None, typer.Option(help="JSON, @file, or @- for stdin.")] = None,
) -> None:
    """Tell a worker something. Prints the id of the command."""
    session = session_of(context)
    with session.client() as client:
        made = client.tell_worker(worker, command, read_json(payload, "--payload"))
    session.say(str(made.id), made.model_dump(mode="json"))


@commands.command("list")
def list_commands(context: typer.Context, worker: WorkerId) -> None:
    """List what a worker was told, the oldest first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_commands(worker)
    session.show_rows(
        rows,
        (
            ("id", lambda each: each.id),
            ("command", lambda each: each.command),
            ("payload", lambda each: each.payload),
            ("created", lambda each: each.created_at),
        ),
    )


@commands.command("delete")
def delete_command(context: typer.Context, command: Annotated[UUID, typer.Argument(help="Id of the command.")]) -> None:
    """Take a command back."""
    session = session_of(context)
    with session.client() as client:
        client.delete_command(command)
    session.say(f"command {command} is deleted", {"id": str(command), "deleted": True})


@pins.command("set")
def pin_version(
    context: typer.Context,
    handler: Handler,
    version: Annotated[str, typer.Argument(help="The least version, such as 1.4.2.")],
) -> None:
    """Let only workers of a version, or a higher one, have tasks of a handler."""
    session = session_of(context)
    with session.client() as client:
        made = client.pin_version(handler, version)
    session.say(f"{handler}: at least {version}", made.model_dump(mode="json"))


@pins.command("list")
def list_pins(context: typer.Context) -> None:
    """List the least versions of workers."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_pins()
    columns = (("handler", lambda each: each.handler_name), ("least version", lambda each: each.min_version))
    session.show_rows(rows, columns)


@pins.command("delete")
def unpin_version(context: typer.Context, handler: Handler) -> None:
    """Let workers of any version have tasks of a handler."""
    session = session_of(context)
    with session.client() as client:
        client.unpin_version(handler)
    session.say(f"{handler}: any version", {"handler_name": handler, "deleted": True})


@routes.command("add")
def route(
    context: typer.Context,
    handler: Handler,
    queue: Annotated[str, typer.Argument(help="Where its new tasks go.")],
    match_queue: Annotated[str | None, typer.Option(help="Only those of this queue.")] = None,
    priority: Annotated[int, typer.Option(help="The highest rule that fits counts.")] = 0,
) -> None:
    """Lead new tasks of a handler to another queue. Prints the id of the rule."""
    session = session_of(context)
    with session.client() as client:
        made = client.route(handler, queue, match_queue=match_queue, priority=priority)
    session.say(str(made.id), made.model_dump(mode="json"))


@routes.command("list")
def list_routes(
    context: typer.Context, handler: Annotated[str | None, typer.Option(help="Only of this handler.")] = None
) -> None:
    """List rules in the order in which they count."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_routes(handler)
    session.show_rows(
        rows,
        (
            ("rule", lambda each: each.id),
            ("handler", lambda each: each.handler_name),
            ("of queue", lambda each: each.match_queue or "any"),
            ("to queue", lambda each: each.queue_override),
            ("priority", lambda each: each.priority),
            ("enabled", lambda each: "yes" if each.enabled else "no"),
        ),
    )


@routes.command("get")
def get_route(context: typer.Context, rule: RuleId) -> None:
    """Show one rule."""
    session = session_of(context)
    with session.client() as client:
        session.show_whole(client.get_route(rule))


@routes.command("delete")
def delete_route(context: typer.Context, rule: RuleId) -> None:
    """Remove a rule; tasks stay where it has led them."""
    session = session_of(context)
    with session.client() as client:
        client.delete_route(rule)
    session.say(f"rule {rule} is deleted", {"id": str(rule), "deleted": True})
