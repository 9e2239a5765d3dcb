"""The product, broken on purpose in one place at a time: each break must be found by the simulation.

A mutant is a patch of production code (or of its twin in memory) that takes one guard away. Most leave everything as it
is as long as nothing goes wrong, as real bugs do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

from orchestrator.core.changes import AttemptRecorded, OutputAdded, StepGone
from orchestrator.core.composites import for_each, nodes, parallel
from orchestrator.core.model import Claim, NodeKey, Step
from orchestrator.core.states import NodeState, StepState
from orchestrator.core.values import replace
from orchestrator.loops import TickResult, together_or_alone
from orchestrator.postman import Postman
from orchestrator.store.fence import Written
from orchestrator.store.memory import MemoryTransaction, hints, letters
from orchestrator.timers import Timers
from orchestrator.turnstile import Turnstile
from workers.executor import Executor

Mutant = Callable[[ExitStack], None]


def _attribute(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(patch.object(owner, name, value))


def fence_removed(stack: ExitStack) -> None:
    """Whoever reports is believed, whether or not its claim still stands."""
    from orchestrator.core import decider

    def any_claim(turn: Any, claim: Claim) -> Step | None:
        step: Step | None = turn.step(claim.key)
        return step if step is not None and step.state in {StepState.CLAIMED, StepState.READY} else None

    _attribute(stack, decider, "_claimed_step", any_claim)


def claim_not_tied_to_its_token(stack: ExitStack) -> None:
    """What was decided in memory is written although its claim has been given back in the store."""
    from orchestrator import turnstile

    _attribute(stack, turnstile, "claims_of", lambda _events: [])


def version_not_compared(stack: ExitStack) -> None:
    """What was decided in memory is written although others have changed the instance."""

    def lock(self: Turnstile, tx: Any, events: Any, passed: dict[UUID, Any]) -> Any:
        locked = tx.lock(list(events), [])
        self._clock.set(locked.now, self._machine.monotonic())
        return locked.now

    def write_at_once(tx: Any, instance: Any, changes: Any, **_found: Any) -> Written:
        tx.write([(instance, changes)])
        return Written(is_current=True, now=tx.now())

    _attribute(stack, Turnstile, "_lock", lock)
    _attribute(stack, MemoryTransaction, "write_at_once", write_at_once)


def memo_not_stored(stack: ExitStack) -> None:
    """A step that has lost its worker once completes, and its output is forgotten."""
    from orchestrator.core import attempts

    store = attempts._store

    def forgetful(turn: Any, step: Step, outcome: Any, called: Any) -> None:
        if not step.losses:
            store(turn, step, outcome, called)
            return
        attempts.complete_step(turn, step)

    _attribute(stack, attempts, "_store", forgetful)


def memo_ignored(stack: ExitStack) -> None:
    """A step that has lost its worker once is run again although its output is stored."""
    from orchestrator.core import attempts

    complete = attempts.complete_step

    def again(turn: Any, step: Step) -> None:
        if step.losses:
            attempts.make_ready(turn, replace(step, losses=0))
        else:
            complete(turn, step)

    _attribute(stack, attempts, "complete_step", again)


def two_transactions(stack: ExitStack) -> None:
    """An output is committed, and what follows from it in a transaction of its own."""

    def pass_once(self: Turnstile, events: Any, rewriting: Any, go_on: Any) -> Any:
        passed = self._decide_in_memory(events, go_on)
        later: list[Any] = []
        with self._store.transaction() as tx:
            now = self._lock(tx, events, passed)
            fresh = [instance_id for instance_id in events if instance_id not in passed]
            if fresh:
                passed |= self._decide_under_lock(tx, {i: events[i] for i in fresh}, now)
            self._write(_Halved(tx, later), passed, rewriting, now)
        if later:
            with self._store.transaction() as tx:
                tx.write(later)
        for each in passed.values():
            self._slices.keep(each.current)
        return passed

    _attribute(stack, Turnstile, "_pass_once", pass_once)


class _Halved:
    """A transaction that writes outputs, and puts the rest off."""

    def __init__(self, tx: Any, later: list[Any]) -> None:
        self._tx = tx
        self._later = later

    def write(self, decided: Any) -> None:
        at_once = (OutputAdded, AttemptRecorded, StepGone)
        for instance, changes in decided:
            first = tuple(change for change in changes if isinstance(change, at_once))
            rest = tuple(change for change in changes if not isinstance(change, at_once))
            if first:
                self._tx.write([(instance, first)])
                self._later.append((instance, rest))
            else:
                self._tx.write([(instance, rest)])


def timer_dropped_before_it_fires(stack: ExitStack) -> None:
    """A timer is removed in one transaction and fired in the next."""

    def tick(self: Timers) -> TickResult:
        with self._engine.store.transaction() as tx:
            due = tx.due_timers(200)
            tx.drop_timers(due)
        done = together_or_alone(self._engine.fire, due, self._postpone) if due else 0
        return TickResult(done=done, wait=0.0 if due else 0.1)

    _attribute(stack, Timers, "tick", tick)


def join_entered_twice(stack: ExitStack) -> None:
    """A parallel block goes on when one branch is left, and again when none is."""

    def branch_ended(turn: Any, key: NodeKey, block: Any, result: NodeState, error: Any) -> None:
        del block, result, error
        node = turn.node(key)
        node = nodes.remember(turn, node, open=node.memory["open"] - 1)
        if node.memory["open"] <= 1:
            nodes.settle(turn, node, NodeState.COMPLETED)

    _attribute(stack, parallel, "branch_ended", branch_ended)


def bound_ignored(stack: ExitStack) -> None:
    """A for_each starts one item too many."""

    def wants_more(memory: Any, block: Any) -> bool:
        is_well = not memory["failed"] and not memory["cancelled"]
        return is_well and memory["open"] < block.concurrency + 1 and memory["next"] < memory["total"]

    _attribute(stack, for_each, "_wants_more", wants_more)


def hint_never_repeated(stack: ExitStack) -> None:
    """A step that was hinted once is not hinted again."""
    heads = hints.heads

    def fresh(tx: Any, handlers: Sequence[str], again_after: Any, limit: int) -> Any:
        return [head for head in heads(tx, handlers, again_after * 10_000, limit) if not head.hints]

    _attribute(stack, MemoryTransaction, "heads", fresh)


def letter_opened_twice(stack: ExitStack) -> None:
    """A letter stays in the box when it is opened for the first time."""
    opened: set[UUID] = set()
    open_letter = letters.open_letter

    def keep_once(tx: Any, letter_id: UUID) -> None:
        if letter_id in opened:
            open_letter(tx, letter_id)
        opened.add(letter_id)

    _attribute(stack, letters, "open_letter", keep_once)


def no_postman(stack: ExitStack) -> None:
    """A letter that its writer has not delivered is delivered by nobody."""
    _attribute(stack, Postman, "tick", lambda _self: TickResult(done=0, wait=0.2))


def lease_never_expires(stack: ExitStack) -> None:
    """The claims of a worker that is silent are its own for ever."""
    _attribute(stack, MemoryTransaction, "lost_claims", lambda _self, _dead_after, _limit: [])


def lease_not_looked_at(stack: ExitStack) -> None:
    """A worker that stood still, and is taken for dead, begins with what it had claimed before."""
    from workers.lease import Lease

    _attribute(stack, Lease, "term", lambda _self: 0.0)


def claims_never_adopted(stack: ExitStack) -> None:
    """A worker does not ask what it holds after a commit whose answer was lost."""
    from workers.holdings import Holdings

    _attribute(stack, Holdings, "unknown", lambda _self: [])


def question_costs_the_claims(stack: ExitStack) -> None:
    """The former bug of the executor: a question that fails after a commit repeats the commit."""

    def commit(self: Executor, reports: Any, carry_on: Any) -> Any:
        from workers.patience import Patience

        patience, holdings = Patience(600, self._machine, self._random), self._holdings
        while True:
            try:
                finished = self._engine.finish(reports, carry_on)
                claims = holdings.note(finished.claims, self._term())
                return (
                    replace(finished, claims=(*claims, *holdings.note(holdings.unknown(), self._term())))
                    if carry_on
                    else finished
                )
            except Exception as error:
                if carry_on is not None:
                    holdings.doubt()
                patience.wait(error)

    _attribute(stack, Executor, "_commit", commit)


def ended_flow_is_claimed(stack: ExitStack) -> None:
    """A cancel ends the flow, and forgets to take its ready steps from the workers."""
    from orchestrator.core import cancellation

    cancel = cancellation.cancel_step

    def forgetful(turn: Any, step: Step) -> None:
        cancel(turn, step)
        if step.state is StepState.READY:
            turn.put_step(replace(step, activity=step.activity))

    _attribute(stack, cancellation, "cancel_step", forgetful)


def effects_run_ahead(stack: ExitStack) -> None:
    """A worker runs any step ahead of the commit that would claim it."""
    made = Executor._carry_on

    def carry_on(self: Executor, until: float) -> Any:
        carry = made(self, until)
        return None if carry is None else replace(carry, effectless=carry.handlers)

    _attribute(stack, Executor, "_carry_on", carry_on)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (
        fence_removed,
        claim_not_tied_to_its_token,
        version_not_compared,
        memo_not_stored,
        memo_ignored,
        two_transactions,
        timer_dropped_before_it_fires,
        join_entered_twice,
        bound_ignored,
        hint_never_repeated,
        letter_opened_twice,
        no_postman,
        lease_never_expires,
        lease_not_looked_at,
        claims_never_adopted,
        question_costs_the_claims,
        ended_flow_is_claimed,
        effects_run_ahead,
    )
}


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break the product for a block."""
    with ExitStack() as stack:
        MUTANTS[name](stack)
        yield
