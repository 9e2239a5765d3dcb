"""Delivers letters that their senders did not: a process that died between its commit and the delivery, or one that had
more to do than was good for it."""

from datetime import timedelta
from uuid import UUID

from orchestrator.engine import Engine
from orchestrator.loops import TickResult, together_or_alone

WAIT_SECONDS = 0.2
POSTPONE = timedelta(seconds=30)
"""When an instance that could not be handed its letters is tried again."""


class Postman:
    """Looks for letters that were not delivered. Several may run: a letter is opened once, under its reader's lock."""

    name = "postman"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tick(self) -> TickResult:
        """Deliver a bounded number of letters."""
        with self._engine.store.transaction(is_single=True) as tx:
            recipients = tx.overdue_letters(self._engine.settings.loop_batch)
        if not recipients:
            return TickResult(done=0, wait=WAIT_SECONDS)
        delivered = together_or_alone(self._engine.deliver, recipients, self._postpone)
        return TickResult(done=delivered, wait=0.0)

    def _postpone(self, recipient: UUID) -> None:
        with self._engine.store.transaction() as tx:
            tx.postpone_letters(recipient, POSTPONE)
