"""Options that say which instances are meant, for commands about more than one."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from orchestrator.client import Client

States = Annotated[
    list[str] | None, typer.Option("--state", help="Only this state; repeatable, or separated by commas.")
]
OfVersion = Annotated[
    str | None, typer.Option("--sequence", help="Only this version: an id, or a name for its newest.")
]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Only this namespace.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", help="Only with this metadata: key=text; repeatable.")
]


def id_of(client: "Client", sequence: str | None, namespace: str | None) -> UUID | None:
    """Give the id of the version that `--sequence` means; None for any."""
    if sequence is None:
        return None
    return client.get_sequence(sequence, namespace=namespace or "default").id


def split(states: list[str] | None) -> list[str] | None:
    """Take apart what was separated by commas.

    >>> split(["failed,paused", "running"])
    ['failed', 'paused', 'running']
    """
    return None if states is None else [state for written in states for state in written.split(",")]


def pairs_of(metadata: list[str] | None) -> dict[str, str]:
    """Read `key=text` each.

    Raises:
        typer.BadParameter: One of them has no key, or no `=`.
    """
    pairs = [written.partition("=") for written in metadata or ()]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise typer.BadParameter("write key=text", param_hint="--metadata")
    return {name: text for name, _, text in pairs}
