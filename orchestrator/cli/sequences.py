"""`orchestrator sequences`: store definitions and look at them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from orchestrator.cli.session import Output, read_document, session_of
from orchestrator.errors import InvalidArgument

if TYPE_CHECKING:
    from orchestrator.client import Definition

app = typer.Typer(help="Store definitions and look at them.", no_args_is_help=True)

NameOrId = Annotated[str, typer.Argument(help="A name, for its newest version, or the id of a version.")]
VersionId = Annotated[UUID, typer.Argument(help="Id of a version.")]
Namespace = Annotated[str, typer.Option(help="Where the name is looked up.")]
Version = Annotated[int | None, typer.Option(help="A version of the name instead of the newest.")]

NESTED = ("blocks", "body", "try_block", "catch_block", "finally_block", "default")
"""Members of a block that hold a list of blocks."""


@app.command()
def create(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="JSON document, canonical or shorthand; - for stdin.")] = None,
    library: Annotated[
        str | None, typer.Option(help="Take a ready definition of that name; `list` names them.")
    ] = None,
) -> None:
    """Store a definition. Prints its id."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    if (file is None) == (library is None):
        raise typer.BadParameter("give either a file or --library", param_hint="FILE")
    if library == "list":
        return _list_library()
    session = session_of(context)
    document = read_document(file) if file is not None else _from_library(library or "", session.tenant)
    with session.client() as client:
        stored = client.create_sequence(document)
    for warning in stored.warnings:
        printing.note(f"warning: {warning}")
    if not stored.is_new:
        printing.note("its newest version says just this already")
    if session.output is Output.JSON:
        printing.print_json(stored.model_dump(mode="json"))
    else:
        typer.echo(stored.id)
    return None


@app.command("get")
def get_one(
    context: typer.Context, sequence: NameOrId, namespace: Namespace = "default", version: Version = None
) -> None:
    """Show one version: its blocks in a table, the whole document in JSON."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        found = client.get_sequence(sequence, namespace=namespace, version=version)
    if session.output is Output.JSON:
        printing.print_json(found.document)
        return
    fields = ("name", "version", "id", "tenant_id", "namespace", "created_at")
    session.show_one(found, [(name, getattr(found, name)) for name in fields])
    if found.deprecated:
        typer.echo("deprecated")
    typer.echo()
    _show_blocks(found.document["blocks"], depth=0)


@app.command("list")
def list_all(
    context: typer.Context,
    namespace: Annotated[str | None, typer.Option(help="Only this namespace.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")] = 200,
    offset: Annotated[int, typer.Option(min=0, help="Lines left out before.")] = 0,
) -> None:
    """List all versions, deprecated ones too."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        page = client.list_sequences(namespace=namespace, offset=offset, limit=limit)
    _show_definitions(session.output, page.items)
    printing.note_of_more(has_more=page.has_more, offset=offset, shown=len(page.items))


@app.command()
def versions(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the sequence.")],
    namespace: Namespace = "default",
) -> None:
    """List the versions of a name that are not deprecated, the highest first."""
    session = session_of(context)
    with session.client() as client:
        _show_definitions(session.output, client.versions(name, namespace=namespace))


@app.command()
def deprecate(
    context: typer.Context, sequence: NameOrId, namespace: Namespace = "default", version: Version = None
) -> None:
    """Let no new instance use a version; running ones go on. A name needs --version."""
    from orchestrator.client.calls import as_id  # noqa: PLC0415 - slow

    if as_id(sequence) is None and version is None:
        raise typer.BadParameter(f"say which version of {sequence!r}", param_hint="--version")
    session = session_of(context)
    with session.client() as client:
        found = client.get_sequence(sequence, namespace=namespace, version=version)
        client.deprecate(found.id)
    session.say(f"{found.name} version {found.version} is deprecated", {"id": str(found.id), "deprecated": True})


@app.command("set-status")
def set_status(
    context: typer.Context,
    sequence: VersionId,
    status: Annotated[str, typer.Argument(help="draft, staging, production or unpublished.")],
) -> None:
    """Say where a version stands."""
    session = session_of(context)
    with session.client() as client:
        client.set_sequence_status(sequence, status)
    session.say(f"version {sequence} is {status}", {"id": str(sequence), "status": status})


@app.command()
def delete(context: typer.Context, sequence: VersionId) -> None:
    """Delete a version and its ended instances; exit code 4 while others are bound to it."""
    session = session_of(context)
    with session.client() as client:
        client.delete_sequence(sequence)
    session.say(f"version {sequence} is deleted", {"id": str(sequence), "deleted": True})


@app.command()
def promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the sequence.")],
    namespace: Namespace = "default",
    version: Version = None,
) -> None:
    """Bring the newest version of a name, or the given one, to production."""
    session = session_of(context)
    with session.client() as client:
        promoted = client.promote(name, namespace=namespace, version=version)
    session.say(f"{name} version {promoted.version} is in production", promoted.model_dump(mode="json"))


@app.command()
def unpublish(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the sequence.")],
    namespace: Namespace = "default",
    delete: Annotated[bool, typer.Option("--delete", help="Delete them and their ended instances as well.")] = False,
) -> None:
    """Withdraw all versions of a name; running instances go on."""
    session = session_of(context)
    with session.client() as client:
        client.unpublish(name, namespace=namespace, delete=delete)
    session.say(
        f"{name} is {'deleted' if delete else 'unpublished'}", {"name": name, "unpublished": True, "deleted": delete}
    )


def _show_definitions(output: Output, found: "tuple[Definition, ...]") -> None:
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    if output is Output.JSON:
        printing.print_json([each.document for each in found])
        return
    printing.show_rows(
        output,
        found,
        (
            ("name", lambda each: each.name),
            ("version", lambda each: each.version),
            ("id", lambda each: each.id),
            ("tenant", lambda each: each.tenant_id),
            ("namespace", lambda each: each.namespace),
            ("deprecated", lambda each: "yes" if each.deprecated else ""),
            ("created", lambda each: each.created_at),
        ),
    )


def _show_blocks(blocks: list[dict[str, Any]], *, depth: int) -> None:
    for block in blocks:
        words = [
            block["id"],
            block["type"],
            block.get("handler"),
            block.get("queue_name") and f"on {block['queue_name']}",
        ]
        typer.echo("  " * depth + "  ".join(word for word in words if word))
        for name in NESTED:
            if isinstance(block.get(name), list):
                _show_blocks(block[name], depth=depth + 1)
        for lists in block.get("branches") or ():
            _show_blocks(lists, depth=depth + 1)
        for part in (*(block.get("routes") or ()), *(block.get("variants") or ())):
            _show_blocks(part["blocks"], depth=depth + 1)


def _from_library(name: str, tenant: str | None) -> dict[str, Any]:
    """Load a ready definition as the caller's own: under its tenant, and with an id that nobody has taken yet."""
    from sequences import library  # noqa: PLC0415 - rarely needed
    from sequences.shorthand import is_shorthand  # noqa: PLC0415 - rarely needed

    try:
        document = library.load(name)
    except LookupError as error:
        raise InvalidArgument(str(error)) from error
    if not is_shorthand(document):
        document |= {"id": str(uuid4()), "tenant_id": tenant or document["tenant_id"]}
    return document


def _list_library() -> None:
    from sequences import library  # noqa: PLC0415 - rarely needed

    for name in library.names():
        typer.echo(name)
