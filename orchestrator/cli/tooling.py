"""Verbs of `orchestrator sequences` that look into definitions, stored or not; all print JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli.session import read_document, read_json, session_of

Definition = Annotated[
    str, typer.Argument(help="Id of a stored version, or a file with a definition; - for stdin.", metavar="ID_OR_FILE")
]


def preflight(context: typer.Context, definition: Definition) -> None:
    """Check a definition against what the installation has: handlers, queues, credentials."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.preflight(_read(definition)))


def dataflow(context: typer.Context, definition: Definition) -> None:
    """Say which block reads what of which."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.dataflow(_read(definition)))


def schema(context: typer.Context) -> None:
    """Print the JSON Schema of definitions, for editors."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.language_schema())


def inspect_template(
    context: typer.Context, template: Annotated[str, typer.Argument(help="Such as '{{ data.name }}'.")]
) -> None:
    """Say what a template refers to."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    with session_of(context).client() as client:
        printing.print_json(client.inspect_template(template))


def try_template(
    context: typer.Context,
    template: Annotated[str, typer.Argument(help="Such as '{{ data.name }}'.")],
    data: Annotated[str | None, typer.Option("--data", "-d", help="context.data: JSON, @file, @- for stdin.")] = None,
    config: Annotated[str | None, typer.Option(help="context.config: JSON, @file, @- for stdin.")] = None,
    outputs: Annotated[str | None, typer.Option(help="Outputs by block: JSON, @file, @- for stdin.")] = None,
) -> None:
    """Evaluate a template, and say where each of its expressions had its value from."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    stored = read_json(outputs, "--outputs")
    if stored is not None and not isinstance(stored, dict):
        raise typer.BadParameter("outputs have to be an object, by block", param_hint="--outputs")
    with session_of(context).client() as client:
        printing.print_json(
            client.debug_template(
                template, data=read_json(data, "--data"), config=read_json(config, "--config"), outputs=stored
            )
        )


def _read(definition: str) -> UUID | Mapping[str, Any]:
    try:
        return UUID(definition)
    except ValueError:
        return read_document(Path(definition))


def add_to(sequences: typer.Typer) -> None:
    """Let a group of commands have these."""
    for verb in (preflight, dataflow, schema, inspect_template, try_template):
        sequences.command()(verb)
