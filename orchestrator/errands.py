"""What a commit leaves to be done at once by the process that made it: children to start, letters to deliver.

Both stand in the store (a timer that is due, a row in `letters`), so whatever is not done here, because the process
died or because it would take too long, is done by the timers and by the postman. That is also why nothing here may
fail the commit it follows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from orchestrator.core.changes import Change, ChildCreated, LetterWritten
from orchestrator.core.events import Event, MailArrived, TimerFired
from orchestrator.core.model import ROOT_KEY
from orchestrator.errors import StoreUnavailable
from orchestrator.store.interface import Store
from orchestrator.turnstile import Passed

log = structlog.get_logger()

AT_ONCE = 100
"""Children, and recipients, that one transaction locks."""
ROUNDS = 100
"""Generations of errands that one commit may cause here: a child whose end starts the next child, and so on."""

Pass = Callable[[Mapping[UUID, Sequence[Event]]], dict[UUID, Passed]]


@dataclass(slots=True)
class Errands:
    """Children that were created, with the moment their start is due, and instances that were written to."""

    children: dict[UUID, datetime] = field(default_factory=dict)
    recipients: dict[UUID, None] = field(default_factory=dict)

    def note(self, changes: Iterable[Change]) -> None:
        """Take note of what changes leave to be done."""
        for change in changes:
            if isinstance(change, ChildCreated):
                self.children[change.child.id] = change.child.created_at
            elif isinstance(change, LetterWritten):
                self.recipients[change.letter.recipient] = None

    @classmethod
    def of(cls, passed: Mapping[UUID, Passed]) -> "Errands":
        """Give what events that have passed leave to be done."""
        errands = cls()
        for each in passed.values():
            errands.note(each.changes())
        return errands

    def add(self, other: "Errands") -> None:
        """Take over what others have left to be done."""
        self.children |= other.children
        self.recipients |= other.recipients

    def parts(self) -> Iterator["Errands"]:
        """Give portions that one transaction each may do: it locks all instances of its portion."""
        children, recipients = list(self.children.items()), list(self.recipients)
        for start in range(0, max(len(children), len(recipients)), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            yield Errands(children=dict(children[part]), recipients=dict.fromkeys(recipients[part]))

    def __bool__(self) -> bool:
        return bool(self.children or self.recipients)


class Messenger:
    """Runs errands.

    Args:
        passing: Passes events through the store and rings for what they leave ready; runs no errands.
    """

    def __init__(self, store: Store, passing: Pass) -> None:
        self._store = store
        self._pass = passing

    def run(self, errands: Errands) -> None:
        """Do what a commit has left to be done, and what follows from that. Never raises."""
        for _ in range(ROUNDS):
            if not errands:
                return
            try:
                errands, _ = self._round(errands)
            except StoreUnavailable:
                log.warning("errands_left", children=len(errands.children), recipients=len(errands.recipients))
                return
            except Exception:
                log.exception("errands_failed", children=len(errands.children), recipients=len(errands.recipients))
                return

    def deliver(self, recipients: Sequence[UUID]) -> int:
        """Have instances open their letters; returns how many letters are gone.

        Letters to instances that have ended, or that do not exist, are dropped.
        """
        errands, delivered = self._round(Errands(recipients=dict.fromkeys(recipients)))
        self.run(errands)
        return delivered

    def _round(self, errands: Errands) -> tuple[Errands, int]:
        """Start children and have letters opened, some instances at a time; returns what that leaves to be done."""
        left, delivered = Errands(), 0
        for part in errands.parts():
            caused, count = self._part(part)
            left.add(caused)
            delivered += count
        return left, delivered

    def _part(self, errands: Errands) -> tuple[Errands, int]:
        counts: dict[UUID, int] = {}
        if errands.recipients:
            with self._store.transaction() as tx:
                counts = tx.waiting_letters(list(errands.recipients))
        events: dict[UUID, list[Event]] = {
            child: [TimerFired(key=ROOT_KEY, due_at=due_at)] for child, due_at in errands.children.items()
        }
        for recipient, count in counts.items():
            events.setdefault(recipient, []).extend([MailArrived()] * count)
        if not events:
            return Errands(), 0
        passed = self._pass(events)
        unopened = [i for i in counts if i not in passed or any(each.is_stale for each in passed[i].decisions)]
        if unopened:
            with self._store.transaction() as tx:
                tx.drop_undeliverable_letters(unopened)
        return Errands.of(passed), sum(counts.values())
