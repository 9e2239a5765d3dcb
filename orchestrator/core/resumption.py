"""Going on from a root block that a client names (sequences contract §9.8), in an instance or in a copy of one (§9.9).

What was open is withdrawn. That block and all root blocks behind it, with everything inside them and whether they were
injected or not, are forgotten: their nodes, outputs and captured items are as if they had never been. Root blocks in
front of it are not run any more: those that did not end well are skipped. Then the block is entered, in a round of its
own. What was called or written beside the flow (rows of interceptors, of SLA alerts) says what has happened, and stays.

Signals that come along are delivered before the block is entered, so that its guard reads what they write.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.core import gates, hooks, interceptors
from orchestrator.core.cancellation import request_cancel, withdraw_everything
from orchestrator.core.context import merge_checked
from orchestrator.core.events import (
    CancelRequested,
    ContextUpdated,
    PauseRequested,
    ResumeRequested,
    Signal,
    SignalReceived,
)
from orchestrator.core.model import KeptSignal, Node, NodeKey
from orchestrator.core.plan import Plan
from orchestrator.core.slice import Needs, Unloaded
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Enter, Turn
from sequences.document import walk

_ENDED_WELL = frozenset({NodeState.COMPLETED, NodeState.SKIPPED})


class NotARootBlock(Exception):
    """The block is not in the root list of the instance; the text says so."""


def split(plan: Plan, block_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the root blocks in front of one, and that one with those behind it.

    Raises:
        NotARootBlock: There is no such root block.
    """
    if block_id not in plan.root:
        raise NotARootBlock(f"block `{block_id}` is not a root block of the instance")
    position = plan.root.index(block_id)
    return plan.root[:position], plan.root[position:]


def everything_in(plan: Plan, roots: Iterable[str]) -> tuple[str, ...]:
    """Name root blocks and all blocks inside them."""
    return tuple(block.id for block in walk(tuple(plan.places[root].block for root in roots)))


def go_on_from(turn: Turn, block_id: str, data: Mapping[str, Any], signals: Iterable[Signal]) -> None:
    """Forget a root block and all behind it, and enter it; raises NotARootBlock.

    Args:
        data: Laid over the top-level keys of `context.data` before the signals are delivered.
    """
    earlier, again = split(turn.plan, block_id)
    blocks = everything_in(turn.plan, again)
    _load(turn, [NodeKey(root) for root in earlier], blocks)
    rows = turn.slice.count_rows(blocks)
    withdraw_everything(turn)
    turn.walks_again = False
    turn.forget(blocks, rows)
    _skip(turn, [NodeKey(root) for root in earlier])
    hooks.drop(turn)
    turn.remove_error_rows()
    turn.amend(
        round=turn.instance.round + 1,
        iterations=0,
        run_id=turn.new_id(),
        is_held=False,
        is_cancelling=False,
        parked_reason=None,
        started_at=turn.instance.started_at or turn.now,
    )
    if data:
        merge_checked(turn, data)
    for signal in signals:
        if turn.ending is None:
            _deliver(turn, signal)
    if turn.ending is None:
        turn.todo.append(Enter(NodeKey(block_id)))


def _load(turn: Turn, roots: list[NodeKey], blocks: tuple[str, ...]) -> None:
    unknown = frozenset(key for key in roots if key not in turn.slice.nodes)
    uncounted = frozenset(blocks) - turn.slice.row_counts.keys()
    if unknown or uncounted:
        raise Unloaded(Needs(nodes=unknown, rows_of=uncounted, open_work=True))


def _skip(turn: Turn, roots: list[NodeKey]) -> None:
    """Let no root block in front of the one that is entered run any more."""
    for key in roots:
        node = turn.node(key)
        if node is None or node.state not in _ENDED_WELL:
            started_at = node.started_at if node is not None else None
            turn.put_node(Node(key=key, state=NodeState.SKIPPED, started_at=started_at, completed_at=turn.now))


def _deliver(turn: Turn, signal: Signal) -> None:
    """Do what a signal says to a flow in which nothing is open yet."""
    interceptors.signalled(turn, signal)
    match signal:
        case PauseRequested():
            turn.amend(is_held=True)
        case ResumeRequested():
            turn.amend(is_held=False)
        case CancelRequested():
            request_cancel(turn)
        case ContextUpdated(data=data):
            merge_checked(turn, data)
        case SignalReceived():
            gates.receive(turn, KeptSignal(id=signal.id, name=signal.name, payload=signal.payload))
