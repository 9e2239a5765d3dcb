"""From block to block: what is entered next, and who is told that a block has ended."""

from typing import assert_never

from orchestrator.core.attempts import enter_step, reuse
from orchestrator.core.children import enter_child
from orchestrator.core.composites import for_each, loop, parallel, race, router, saga, scope, split, try_catch
from orchestrator.core.composites.nodes import Memory, must_end, start_iteration
from orchestrator.core.migration import is_occupied, walk_again
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.steps import end_node
from orchestrator.core.turn import Ended, Enter, Reuse, Turn
from sequences import document

_OK = frozenset({NodeState.COMPLETED, NodeState.SKIPPED})


def walk(turn: Turn) -> None:
    """Do everything that follows from what has ended or begun, until only open leaves are left."""
    while turn.todo or turn.walks_again:
        if not turn.todo:
            turn.walks_again = False
            walk_again(turn)
            continue
        task = turn.todo.popleft()
        if isinstance(task, Enter):
            enter(turn, task.key)
        elif isinstance(task, Reuse):
            reuse(turn, task)
        else:
            advance(turn, task)


def enter(turn: Turn, key: NodeKey) -> None:
    """Start a block, or go on with one that is open or reopened; a block that has ended is never run again."""
    former = turn.node(key) if turn.instance.round > 0 else None
    if former is not None and former.state.is_terminal:
        turn.todo.append(Ended(key, former.state, StepError.from_json(former.memory.get("error"))))
        return
    if former is not None and former.state is not NodeState.PENDING:
        _go_on(turn, former)
        return
    if turn.instance.round > 0 and (_is_open_step(turn, key) or is_occupied(turn, key)):
        return
    if must_end(turn, key):
        end_node(turn, key, NodeState.CANCELLED)
        return
    _start(turn, key, (former.memory or None) if former is not None else None)


def _start(turn: Turn, key: NodeKey, memory: Memory | None) -> None:
    match turn.plan.places[key.block_id].block:
        case document.Step():
            enter_step(turn, key)
        case document.Parallel() as block:
            parallel.enter(turn, key, block)
        case document.Race() as block:
            race.enter(turn, key, block, memory)
        case document.Router() as block:
            router.enter(turn, key, block, memory)
        case document.Loop() as block:
            loop.enter(turn, key, block, memory)
        case document.ForEach() as block:
            for_each.enter(turn, key, block, memory)
        case document.TryCatch():
            try_catch.enter(turn, key, memory)
        case document.ABSplit() as block:
            split.enter(turn, key, block, memory)
        case document.CancellationScope():
            scope.enter(turn, key)
        case document.Saga() as block:
            saga.enter(turn, key, block, memory)
        case document.SubSequence() as block:
            enter_child(turn, key, block)
        case _ as block:
            assert_never(block)


def _is_open_step(turn: Turn, key: NodeKey) -> bool:
    return isinstance(turn.plan.places[key.block_id].block, document.Step) and turn.step(key) is not None


def _go_on(turn: Turn, node: Node) -> None:
    """Come past an open composite again: enter the lists that are in progress; what is open there is left alone."""
    match turn.plan.places[node.key.block_id].block:
        case document.Parallel() as block:
            parallel.enter(turn, node.key, block, is_stopping=node.memory["stopping"])
        case document.Race() as block:
            race.go_on(turn, node, block)
        case document.Router() as block:
            router.enter(turn, node.key, block, node.memory)
        case document.Loop() if not node.memory.get("polling"):
            start_iteration(turn, node.key, node.memory["n"])
        case document.ForEach() as block:
            for_each.go_on(turn, node, block)
        case document.TryCatch():
            try_catch.go_on(turn, node)
        case document.ABSplit() as block:
            split.enter(turn, node.key, block, node.memory)
        case document.CancellationScope():
            scope.enter(turn, node.key)
        case document.Saga() as block:
            saga.go_on(turn, node, block)
        case _:
            pass  # it waits for a moment or for a child


def advance(turn: Turn, ended: Ended) -> None:
    """Go on after a block: the next of its list, or the end of the list."""
    place = turn.plan.places[ended.key.block_id]
    if ended.state in _OK and place.following is not None:
        turn.todo.append(Enter(NodeKey(place.following, ended.key.iteration)))
        return
    result = NodeState.COMPLETED if ended.state in _OK else ended.state
    parent = turn.plan.parent(ended.key)
    if parent is None:
        turn.end(result, ended.error)
        return
    match turn.plan.places[parent.block_id].block:
        case document.Parallel() as block:
            parallel.branch_ended(turn, parent, block, result, ended.error)
        case document.Race() as block:
            race.branch_ended(turn, parent, block, result, ended.error)
        case document.Router():
            router.list_ended(turn, parent, result, ended.error)
        case document.Loop() as block:
            loop.hear(turn, parent, ended.key.iteration[-1])
            loop.body_ended(turn, parent, block, result, ended.error)
        case document.ForEach() as block:
            loop.hear(turn, parent, ended.key.iteration[-1])
            for_each.item_ended(turn, parent, block, ended, result)
        case document.TryCatch():
            try_catch.list_ended(turn, parent, place.branch, result, ended)
        case document.ABSplit():
            split.list_ended(turn, parent, result, ended.error)
        case document.CancellationScope():
            scope.list_ended(turn, parent, result, ended.error)
        case document.Saga() as block:
            saga.list_ended(turn, parent, block, place.branch, ended)
        case _ as block:
            raise TypeError(f"a block of type {block.type!r} has no lists that run")


def poll(turn: Turn, key: NodeKey) -> bool:
    """Go on with a composite whose pause is over; False if it does not pause."""
    node = turn.node(key)
    if node is None or node.state.is_terminal or not node.memory.get("polling"):
        return False
    match turn.plan.places[key.block_id].block:
        case document.Loop() as block:
            loop.poll(turn, node, block)
        case document.ForEach() as block:
            for_each.poll(turn, node, block)
        case _ as block:
            raise TypeError(f"a block of type {block.type!r} does not pause")
    return True
