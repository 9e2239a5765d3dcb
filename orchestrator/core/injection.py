"""Blocks that join the root list of an instance while it lives (sequences contract §3.12, §9.10).

They take a place among the root blocks that have not started: 0 is directly next, larger numbers clamp, none is the
end. The place is found once and kept as the block they stand in front of; so injections that come at the same moment
are in the order of their transactions, and none displaces another. In an instance that has ended nothing is started:
the blocks wait for a retry or a resume.
"""

from orchestrator.core.model import NodeKey
from orchestrator.core.outcomes import BlocksAdded, Completed, Failed
from orchestrator.core.plan import Injection
from orchestrator.core.slice import Needs, Unloaded
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
from sequences.document import Block, walk
from sequences.validation import MAX_BLOCKS


class Refused(Exception):
    """The blocks cannot join this instance; the text says why."""


def inject(turn: Turn, blocks: tuple[Block, ...], position: int | None) -> None:
    """Let blocks, which are valid in themselves, join the root list.

    Raises:
        Refused: An id is taken, or the plan would grow too large.
    """
    if (refusal := why_not(turn, blocks)) is not None:
        raise Refused(refusal)
    if blocks:
        before = None if position is None else _unstarted(turn, position)
        turn.add_injection(Injection(number=turn.instance.injected, blocks=blocks, before=before))


def why_not(turn: Turn, blocks: tuple[Block, ...]) -> str | None:
    """Say why blocks cannot join; None if they can. An id is taken by any block that has run, a migrated one too."""
    ids = [block.id for block in walk(blocks)]
    _load(turn, {NodeKey(block_id) for block_id in ids})
    for block_id in ids:
        if block_id in turn.plan.places or turn.node(NodeKey(block_id)) is not None:
            return f"duplicate block id: {block_id}"
    total = len(turn.plan.places) + len(ids)
    if total > MAX_BLOCKS:
        return f"instance has {total} blocks, more than the maximum of {MAX_BLOCKS}"
    return None


def refusal(turn: Turn, outcome: Completed) -> Failed | None:
    """Say why the blocks that a step wants to inject cannot join."""
    added = (effect for effect in outcome.effects if isinstance(effect, BlocksAdded))
    reasons = (why_not(turn, effect.blocks) for effect in added)
    reason = next((reason for reason in reasons if reason is not None), None)
    return None if reason is None else Failed(message=reason, retryable=False)


def _unstarted(turn: Turn, position: int) -> str | None:
    """Name the root block at a position among those that have not started; None for the end."""
    root = [NodeKey(block_id) for block_id in turn.plan.root]
    _load(turn, set(root))
    unstarted = [key.block_id for key in root if not _has_started(turn, key)]
    return unstarted[position] if position < len(unstarted) else None


def _has_started(turn: Turn, key: NodeKey) -> bool:
    node = turn.node(key)
    return turn.step(key) is not None or (node is not None and node.state is not NodeState.PENDING)


def _load(turn: Turn, keys: set[NodeKey]) -> None:
    """Ask for nodes and steps together, not one by one."""
    nodes = frozenset(key for key in keys if key not in turn.slice.nodes)
    steps = frozenset(key for key in keys if key not in turn.slice.steps and not turn.slice.open_work)
    if not turn.slice.is_new and (nodes or steps):
        raise Unloaded(Needs(nodes=nodes, steps=steps))
