"""The root of the command line: what all commands share, and where each of them is."""

import sys
from typing import Annotated

import typer

from orchestrator.cli import (
    bulk,
    courses,
    credentials,
    deliveries,
    diagnosis,
    doctor,
    editing,
    instances,
    keys,
    operations,
    people,
    processes,
    registry,
    resources,
    sequences,
    sharing,
    starting,
    tooling,
    usage,
)
from orchestrator.cli.exits import errors_as_exits
from orchestrator.cli.session import DEFAULT_URL, Output, Session, hoisted
from orchestrator.cli.watching import let_watch, watched
from orchestrator.whose import check_packages

ENDINGS = (
    "Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 not found, 4 refused, 5 server unreachable, "
    "6 time over, 130 interrupted."
)

app = typer.Typer(
    help="Durable execution: sequences of steps that survive any crash.",
    epilog=ENDINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def orchestrator(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="ORCHESTRATOR_URL", help="Where the server is.")] = DEFAULT_URL,
    api_key: Annotated[
        str | None, typer.Option(envvar=["ORCHESTRATOR_API_KEY", "ORCH8_API_KEY"], help="Key of the server.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(envvar="ORCHESTRATOR_TENANT", help="Whose things are meant.")] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", envvar="ORCHESTRATOR_OUTPUT", help="How answers are shown.")
    ] = Output.TABLE,
) -> None:
    """Durable execution: sequences of steps that survive any crash. These options may stand anywhere."""
    check_packages()
    context.obj = Session(url=url, api_key=api_key, tenant=tenant, output=output)


processes.add_to(app)
diagnosis.add_to(instances.app)
courses.add_to(instances.app)
editing.add_to(instances.app)
bulk.add_to(instances.app)
tooling.add_to(sequences.app)
for shown, verbs in (
    (instances.app, ("get", "list", "tree", "outputs", "attempts", "diagnose", "logs")),
    (people.approvals, ("list",)),
    (operations.queues, ("list",)),
    (operations.workers, ("list",)),
    (operations.tasks, ("list",)),
    (starting.cron, ("list",)),
    (resources.breakers, ("list",)),
    (deliveries.webhooks, ("list", "deliveries")),
    (registry.events, ("list",)),
    (sharing.sessions, ("get", "instances")),
    (sharing.admin, ("nodes",)),
    (courses.dlq, ("list", "groups")),
):
    let_watch(shown, *verbs)
app.command("usage")(watched(usage.usage))
app.command("changes")(registry.changes)
app.command("doctor")(doctor.doctor)
for name, group in (
    ("sequences", sequences.app),
    ("instances", instances.app),
    ("signals", people.signals),
    ("approvals", people.approvals),
    ("queues", operations.queues),
    ("workers", operations.workers),
    ("tasks", operations.tasks),
    ("triggers", starting.triggers),
    ("cron", starting.cron),
    ("pools", resources.pools),
    ("limits", resources.limits),
    ("breakers", resources.breakers),
    ("webhooks", deliveries.webhooks),
    ("dispatch", deliveries.dispatch),
    ("commands", deliveries.commands),
    ("pins", deliveries.pins),
    ("routes", deliveries.routes),
    ("keys", keys.app),
    ("credentials", credentials.app),
    ("events", registry.events),
    ("plugins", registry.plugins),
    ("sessions", sharing.sessions),
    ("dlq", courses.dlq),
    ("admin", sharing.admin),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line."""
    with errors_as_exits():
        app(hoisted(sys.argv[1:]), prog_name="orchestrator")
