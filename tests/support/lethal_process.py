"""Imported by a process that is to die, with SIGKILL, at the points it is asked to (`tests.support.points`).

What is committed is known by who commits it: the engine's verbs, the dispatcher and the reconciler say so here.
"""

import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

from orchestrator.dispatcher import Dispatcher
from orchestrator.engine import Engine
from orchestrator.reconciler import Reconciler
from orchestrator.store.postgres import PostgresTransaction
from orchestrator.store.session import Transaction
from tests.support.points import DIRECTORY_VARIABLE, Point, die_if_asked
from workers import executor

_DIRECTORY = Path(os.environ[DIRECTORY_VARIABLE])
_doing: ContextVar[str | None] = ContextVar("doing", default=None)
"""What the commits are of that come now: the end of the names of two points."""


def _die_if_asked(when: str, what: str) -> None:
    die_if_asked(_DIRECTORY, Point[f"{when}_{what}"])


def _during(owner: type, name: str, what: str) -> None:
    """Let commits within a method be of a kind."""
    method = getattr(owner, name)

    @wraps(method)
    def wrapped(*positional: Any, **named: Any) -> Any:
        token = _doing.set(what)
        try:
            return method(*positional, **named)
        finally:
            _doing.reset(token)

    setattr(owner, name, wrapped)


def _if_found(name: str, what: str) -> None:
    """Let the commit of a transaction be of a kind, if a verb of it has found something."""
    verb = getattr(PostgresTransaction, name)

    @wraps(verb)
    def wrapped(tx: Any, *positional: Any, **named: Any) -> Any:
        found = verb(tx, *positional, **named)
        if found or found is None:
            tx.doing = what
        return found

    setattr(PostgresTransaction, name, wrapped)


def _claim_ready(
    tx: Any, *positional: Any, claim: Callable[..., Any] = PostgresTransaction.claim_ready, **named: Any
) -> Any:
    """Stand before a claim, which is committed in the message that makes it, and after one that has found something."""
    _die_if_asked("BEFORE", "CLAIM")
    taken = claim(tx, *positional, **named)
    if taken.steps:
        if tx._has_begun:  # a pooler is behind it
            tx.doing = "CLAIM"
        else:
            _die_if_asked("AFTER", "CLAIM")
    return taken


def _ending(end: Callable[..., Any]) -> Callable[..., Any]:
    """Stand before and after what ends a transaction, if there is something to commit."""

    @wraps(end)
    def wrapped(tx: Any, *positional: Any) -> Any:
        what = (getattr(tx, "doing", None) or _doing.get()) if tx._has_begun or len(tx._waiting) > 1 else None
        if what is not None:
            _die_if_asked("BEFORE", what)
        ended = end(tx, *positional)
        if what is not None:
            _die_if_asked("AFTER", what)
        return ended

    return wrapped


def _tick(self: Any, tick: Callable[[Any], Any] = Dispatcher.tick) -> Any:
    result = tick(self)
    if result.done:
        die_if_asked(_DIRECTORY, Point.AFTER_HINTS)
    return result


def _run(*positional: Any, run: Callable[..., Any] = executor.run, **named: Any) -> Any:  # type: ignore[attr-defined]  # not exported
    _die_if_asked("BEFORE", "HANDLER")
    outcome = run(*positional, **named)
    _die_if_asked("AFTER", "HANDLER")
    return outcome


_during(Engine, "start_many", "ACCEPTANCE")
_during(Engine, "start_at_once", "ACCEPTANCE")
_during(Engine, "finish", "REPORT")
_during(Engine, "fire", "TIMER")
_during(Reconciler, "_lose", "RECONCILIATION")
_if_found("mark_hinted", "DISPATCH")
PostgresTransaction.claim_ready = _claim_ready  # type: ignore[method-assign, assignment]
Transaction.commit = _ending(Transaction.commit)  # type: ignore[method-assign]
Transaction.end_with = _ending(Transaction.end_with)  # type: ignore[method-assign]
Dispatcher.tick = _tick  # type: ignore[method-assign]
executor.run = _run  # type: ignore[attr-defined]
