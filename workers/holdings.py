"""The claims that this process holds: those it knows of, and those it may hold without knowing.

A commit may take effect although its answer is lost. What it has claimed is then held by this process without its
knowledge, for as long as the process lives; so after every such doubt it asks the store what it holds, and once more
when the commit cannot be under way any longer.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import structlog

from orchestrator.clock import MachineTime
from orchestrator.core.model import Claim

log = structlog.get_logger()

DOUBT_SECONDS = 35.0
"""A commit whose connection was cut takes effect by then, or never: PostgreSQL notices that nobody is there after 30 s,
and ends a statement, or a transaction that is idle, after 15 s."""


class Holdings:
    """What one process holds, as far as it knows.

    Args:
        held: Lists what it holds according to the store; raises StoreUnavailable.
        term: Gives the number of the time in which what this worker claims is its own; None when it is over.
    """

    def __init__(self, held: Callable[[], Sequence[Claim]], term: Callable[[], float | None], machine: MachineTime):
        self.making = threading.Lock()
        """Held from the making of claims until they are noted: what is looked for meanwhile would be taken twice."""
        self._held = held
        self._term = term
        self._machine = machine
        self._terms: dict[UUID, float | None] = {}
        self._is_unsure = False
        self._ask_again_at = math.inf

    def note(self, claims: Sequence[Claim], term: float | None) -> list[Claim]:
        """Note claims as known; gives them.

        Args:
            term: What it was before they were asked for.
        """
        self._terms.update((claim.token, term) for claim in claims)
        return list(claims)

    def release(self, tokens: Iterable[UUID]) -> None:
        """Note claims as known no longer."""
        for token in tokens:
            self._terms.pop(token, None)

    def may_begin(self, claim: Claim) -> bool:
        """Tell whether a claim was made in the time that goes on."""
        term = self._term()
        return term is not None and self._terms.get(claim.token) == term

    @property
    def is_unsure(self) -> bool:
        """Whether it has to be asked at once what this process holds."""
        return self._is_unsure

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask once more for what a commit without an answer has claimed."""
        return self._machine.monotonic() >= self._ask_again_at

    def doubt(self) -> None:
        """Note that claims are committed that nobody looks after."""
        self._is_unsure = True

    def doubt_commit(self) -> None:
        """Note that a commit may have claimed something, or may do so yet."""
        self._is_unsure = True
        self._ask_again_at = self._machine.monotonic() + DOUBT_SECONDS

    def unknown(self) -> list[Claim]:
        """Give the claims of this process that it does not know of: the answer that would have named them was lost."""
        is_due = self.is_due
        if not self._is_unsure and not is_due:
            return []
        self._is_unsure = False
        if is_due:
            self._ask_again_at = math.inf
        unknown = [claim for claim in self._held() if claim.token not in self._terms]
        if unknown:
            log.warning("claims_adopted", count=len(unknown))
        return unknown
