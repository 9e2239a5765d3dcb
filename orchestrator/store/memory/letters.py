"""Letters between instances, and children; the twin of `orchestrator.store.letters` and of what `apply` and `reading`
do for them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from uuid import UUID

from orchestrator.core.changes import ChildCreated
from orchestrator.core.letters import Letter, read_content, written_content
from orchestrator.core.model import BESIDE, ROOT_KEY, Instance, SequenceName, Startable
from orchestrator.core.slice import Needs, Slice
from orchestrator.store.letters import GRACE
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.emitting import newest_definition
from orchestrator.store.memory.tables import ContextRow, LetterRow, Rows, from_text, to_text
from orchestrator.store.reading import HIDDEN_ROWS, LETTERS_AT_ONCE, shown_row


def create_child(tx: Base, created: ChildCreated, parent: Rows) -> None:
    """Insert a child as it is before its first decision, with its parent's config and a timer that is due."""
    rows = Rows()
    rows.instance[None] = created.child
    config = parent.context[None].config
    rows.context[None] = ContextRow(
        data=to_text(created.data), config=config, audit=to_text(None), metadata=to_text(None)
    )
    rows.timers[ROOT_KEY] = created.child.created_at
    tx.journal.insert(tx.tables.instances, created.child.id, rows)


def write_letter(tx: Base, letter: Letter) -> None:
    """Keep a letter until it is opened."""
    kind, body = written_content(letter.content)
    row = LetterRow(
        id=letter.id,
        sender=letter.sender,
        recipient=letter.recipient,
        kind=kind,
        body=to_text(body),
        due_at=tx.now() + GRACE,
    )
    tx.journal.insert(tx.tables.letters, letter.id, row)


def open_letter(tx: Base, letter_id: UUID) -> None:
    """Remove a letter."""
    tx.journal.drop(tx.tables.letters, letter_id)


def waiting(tx: Base, recipients: Sequence[UUID]) -> dict[UUID, int]:
    """Count the letters of some instances; those without any are left out."""
    return dict(Counter(row.recipient for row in tx.tables.letters.values() if row.recipient in set(recipients)))


def overdue(tx: Base, limit: int) -> list[UUID]:
    """Name instances with letters that nobody has delivered, those that have waited longest first."""
    due = sorted((row for row in tx.tables.letters.values() if row.due_at <= tx.now()), key=attrgetter("due_at"))
    return list(dict.fromkeys(row.recipient for row in due[:limit]))


def drop_undeliverable(tx: Base, recipients: Sequence[UUID]) -> int:
    """Remove letters to instances that have ended or do not exist; returns how many."""
    gone = [
        row.id
        for row in tx.tables.letters.values()
        if row.recipient in set(recipients) and not _is_open(tx.tables.instances.get(row.recipient))
    ]
    for letter_id in gone:
        tx.journal.drop(tx.tables.letters, letter_id)
    return len(gone)


def _is_open(rows: Rows | None) -> bool:
    return rows is not None and not rows.instance[None].state.is_terminal


def postpone(tx: Base, recipient: UUID, by: timedelta) -> None:
    """Try the letters of an instance again later."""
    later: datetime = tx.now() + by
    for row in [row for row in tx.tables.letters.values() if row.recipient == recipient]:
        tx.journal.put(tx.tables.letters, row.id, row._replace(due_at=later))


def fill(tx: Base, current: Slice, needs: Needs) -> None:
    """Put into a slice the sequences, rows of children, and letters that it needs."""
    for name in needs.sequences:
        current.sequences[name] = _startable(tx, current.instance, name)
    for child in needs.child_rows:
        rows = tx.tables.instances.get(child, Rows()).outputs
        made = [rows[output_id] for output_id in sorted(rows) if rows[output_id].change.lane[:1] != (BESIDE,)]
        shown = [row for row in made if row.change.ref not in HIDDEN_ROWS]
        current.child_rows[child] = [
            shown_row(
                child,
                (
                    row.change.id,
                    row.change.key.block_id,
                    row.output,
                    row.change.ref,
                    len(row.text),
                    row.change.attempt,
                    row.change.created_at,
                ),
            )
            for row in shown
        ]
    if needs.letters:
        mine = sorted(row for row in tx.tables.letters.values() if row.recipient == current.instance.id)
        current.letters = {row.id: _letter(row) for row in mine[:LETTERS_AT_ONCE]}


def _letter(row: LetterRow) -> Letter:
    content = read_content(row.kind, from_text(row.body))
    return Letter(id=row.id, sender=row.sender, recipient=row.recipient, content=content)


def _startable(tx: Base, instance: Instance, name: SequenceName) -> Startable | None:
    newest = newest_definition(tx, instance.tenant_id, instance.namespace, name.name, version=name.version)
    if newest is None:
        return None
    return Startable(sequence_id=newest.id, input_schema=newest.document.get("input_schema"))
