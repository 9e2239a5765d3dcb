"""`orchestrator doctor`: what is wrong here, and what to do."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from orchestrator.cli.exits import ExitCode
from orchestrator.cli.processes import read_settings
from orchestrator.cli.session import Output, session_of


def doctor(
    context: typer.Context,
    instance: Annotated[UUID | None, typer.Argument(help="Say why this instance stands where it stands.")] = None,
    api: Annotated[str | None, typer.Option(metavar="URL", help="Look at the API of this address as well.")] = None,
) -> None:
    """Say what is wrong with the installation of DATABASE_URL and REDIS_URL, and what to do.

    Exit codes: 0 nothing is wrong (there may be notes), 1 something is, 3 there is no such instance.
    """
    from orchestrator.cli import printing  # noqa: PLC0415 - slow
    from orchestrator.doctor import Severity, examine, explain  # noqa: PLC0415 - slow

    settings = read_settings()
    findings = examine(settings, api) if instance is None else explain(settings, instance)
    output = session_of(context).output
    if output is Output.JSON:
        printing.print_json([asdict(each) for each in findings])
    else:
        for each in findings:
            typer.echo(f"{each.severity.value:<8} {each.what}\n         {each.name}: {each.remedy}")
        if not findings:
            typer.echo("nothing is wrong")
    if any(each.severity is not Severity.NOTE for each in findings):
        raise typer.Exit(ExitCode.WORK_FAILED)
