"""What was injected into the root lists of instances."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orchestrator.core.plan import Injection
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction
from sequences.document import parse_blocks, to_document


def injection_row(instance_id: UUID, injection: Injection) -> tuple[Any, ...]:
    """Write an injection: `instance_id, number, before, blocks`."""
    blocks = private([to_document(block) for block in injection.blocks])
    return (instance_id, injection.number, injection.before, blocks)


def injected_into(tx: Transaction, instance_ids: Sequence[UUID]) -> dict[UUID, list[Injection]]:
    """Read the injections of instances, in the order they were made; instances without any are left out."""
    found: dict[UUID, list[Injection]] = {}
    for instance_id, number, before, blocks in tx.query(
        "SELECT instance_id, number, before, blocks FROM injections WHERE instance_id = ANY(%s::uuid[]) "
        "ORDER BY instance_id, number",
        (list(instance_ids),),
    ):
        injection = Injection(number=number, blocks=parse_blocks(blocks), before=before)
        found.setdefault(instance_id, []).append(injection)
    return found
