"""Composites: what entering one starts, and what the end of one of its lists means (sequences contract §3).

A composite keeps what it needs to settle on its own row, in `memory`; it changes only under the instance's lock:

    parallel   open (branches), failed, cancelled, error
    loop       n (the iteration it is in, or comes to next), polling (it is between two iterations), silent (blocks of
               the body that the condition reads and that have not completed yet)
    for_each   total, next (index to start), open, finished, again (what a retry starts anew), failed, cancelled, error
    router     choice (index of the list that runs, None for none)
    try_catch  phase, result, error, origin (the list before finally), caught (its own `_error`: others overwrite the
               shared one, before a retry or while rounds of a for_each run at once)

A list is walked without a cursor: the block that ended knows, from the plan, what follows it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.core.attempts import enter_step
from orchestrator.core.cancellation import cancel_inside
from orchestrator.core.conditions import condition_references, holds
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.plan import CATCH_LIST, FINALLY_LIST, TRY_LIST
from orchestrator.core.states import NodeState, TryPhase
from orchestrator.core.steps import end_node
from orchestrator.core.turn import Ended, Enter, Turn
from sequences import document
from sequences.collection import resolve_collection
from sequences.references import ALL, references
from sequences.templates import TemplateError

LISTS_PER_TURN = 2000
"""Iterations without a step that one decision walks through before it lets others have the instance."""

_OK = frozenset({NodeState.COMPLETED, NodeState.SKIPPED})


def walk(turn: Turn) -> None:
    """Do everything that follows from what has ended or begun, until only open leaves are left."""
    while turn.todo:
        task = turn.todo.popleft()
        if isinstance(task, Enter):
            enter(turn, task.key)
        else:
            advance(turn, task)


def enter(turn: Turn, key: NodeKey) -> None:
    """Start a block, or go on with one that a retry reopened; a block that has completed is never run again."""
    place = turn.plan.places[key.block_id]
    former = turn.node(key) if turn.instance.round > 0 else None
    if former is not None and former.state in _OK:
        turn.todo.append(Ended(key, former.state))
        return
    if _must_end(turn, key):
        end_node(turn, key, NodeState.CANCELLED)
        return
    memory = (former.memory or None) if former is not None else None
    match place.block:
        case document.Step():
            enter_step(turn, key)
        case document.Parallel() as block:
            _enter_parallel(turn, key, block)
        case document.Router() as block:
            _enter_router(turn, key, block, memory)
        case document.Loop() as block:
            _enter_loop(turn, key, block, memory)
        case document.ForEach() as block:
            _enter_for_each(turn, key, block, memory)
        case document.TryCatch():
            _enter_try_catch(turn, key, memory)
        case _ as block:
            message = f"blocks of type {block.type!r} cannot run in this version"
            end_node(turn, key, NodeState.FAILED, error=StepError(step_id=key.block_id, message=message))


def _must_end(turn: Turn, key: NodeKey) -> bool:
    """Tell whether nothing may start here any more: the instance is cancelled, or a parallel around has failed fast."""
    if turn.instance.is_cancelling and not turn.plan.places[key.block_id].is_shielded:
        return True
    return any(turn.open_node(stopper).memory["failed"] for stopper in turn.plan.stoppers(key))


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
            _branch_ended(turn, parent, block, result, ended.error)
        case document.Router():
            _settle(turn, turn.open_node(parent), result, ended.error)
        case document.Loop() as block:
            _body_ended(turn, parent, block, result, ended.error)
        case document.ForEach() as block:
            _item_ended(turn, parent, block, ended, result)
        case document.TryCatch():
            _try_list_ended(turn, parent, place.branch, result, ended)
        case _ as block:
            raise TypeError(f"a block of type {block.type!r} has no lists that run")


def _open(turn: Turn, key: NodeKey, memory: dict[str, Any]) -> Node:
    former = turn.node(key) if turn.instance.round > 0 else None
    started_at = former.started_at if former is not None else turn.now
    node = Node(key=key, state=NodeState.RUNNING, started_at=started_at, memory=memory)
    turn.put_node(node)
    return node


def _remember(turn: Turn, node: Node, **values: Any) -> Node:
    node = replace(node, memory={**node.memory, **values})
    turn.put_node(node)
    return node


def _settle(turn: Turn, node: Node, state: NodeState, error: StepError | None = None) -> None:
    turn.put_node(replace(node, state=state, completed_at=turn.now))
    turn.todo.append(Ended(node.key, state, error))


def _start_list(turn: Turn, block_id: str, branch: int, iteration: tuple[int, ...]) -> bool:
    children = turn.plan.children(block_id, branch)
    if children:
        turn.todo.append(Enter(NodeKey(children[0], iteration)))
    return bool(children)


# -- parallel --------------------------------------------------------------------------------------------------------


def _enter_parallel(turn: Turn, key: NodeKey, block: document.Parallel) -> None:
    branches = [number for number, branch in enumerate(block.branches) if branch]
    node = _open(turn, key, {"open": len(branches), "failed": False, "cancelled": False, "error": None})
    if not branches:
        _settle(turn, node, NodeState.COMPLETED)
    for number in branches:
        _start_list(turn, key.block_id, number, key.iteration)


def _branch_ended(
    turn: Turn, key: NodeKey, block: document.Parallel, result: NodeState, error: StepError | None
) -> None:
    node = turn.open_node(key)
    has_failed = result is NodeState.FAILED
    is_first_failure = has_failed and not node.memory["failed"]
    node = _remember(
        turn,
        node,
        open=node.memory["open"] - 1,
        failed=node.memory["failed"] or has_failed,
        cancelled=node.memory["cancelled"] or result is NodeState.CANCELLED,
        error=node.memory["error"] or (error.to_json() if error else None),
    )
    if node.memory["open"] == 0:
        _settle(turn, node, settled_state(node), StepError.from_json(node.memory["error"]))
    elif is_first_failure and block.fails_fast:
        cancel_inside(turn, key)


def settled_state(node: Node) -> NodeState:
    """Say how a composite of several lists ends: failure outranks cancellation, cancellation outranks success."""
    if node.memory["failed"]:
        return NodeState.FAILED
    return NodeState.CANCELLED if node.memory["cancelled"] else NodeState.COMPLETED


# -- router ----------------------------------------------------------------------------------------------------------


def _enter_router(turn: Turn, key: NodeKey, block: document.Router, memory: Any) -> None:
    choice = memory["choice"] if memory else _choose(turn, key, block)
    node = _open(turn, key, {"choice": choice})
    if choice is None or not _start_list(turn, key.block_id, choice, key.iteration):
        _settle(turn, node, NodeState.COMPLETED)


def _choose(turn: Turn, key: NodeKey, block: document.Router) -> int | None:
    for number, route in enumerate(block.routes):
        if holds(turn, key, route.condition):
            return number
    return len(block.routes) if block.default is not None else None


# -- loop ------------------------------------------------------------------------------------------------------------


def _enter_loop(turn: Turn, key: NodeKey, block: document.Loop, memory: Any) -> None:
    node = _open(turn, key, memory or {"n": 0, "silent": _read_of_own_body(turn, block)})
    if memory is None or memory["polling"]:
        _begin_iteration(turn, node, block)
    else:
        _start_list(turn, key.block_id, 0, (*key.iteration, memory["n"]))


def _begin_iteration(turn: Turn, node: Node, block: document.Loop) -> None:
    n = node.memory["n"]
    if n >= block.max_iterations or not _loop_condition_holds(turn, node, block):
        _settle(turn, node, NodeState.COMPLETED)
        return
    _remember(turn, node, polling=False)
    _start_list(turn, block.id, 0, (*node.key.iteration, n))


def _loop_condition_holds(turn: Turn, node: Node, block: document.Loop) -> bool:
    """Test the condition; it counts as satisfied as long as a block of the body that it reads has not spoken."""
    if node.memory["silent"]:
        return True
    return holds(turn, node.key, block.condition, variables={"iteration": node.memory["n"]})


def _read_of_own_body(turn: Turn, block: document.Loop) -> list[str]:
    read = condition_references(block.condition).outputs
    if read is ALL:
        return []
    return sorted(name for name in read if name in turn.plan.places and block.id in turn.plan.places[name].loops)


def _still_silent(turn: Turn, node: Node) -> list[str]:
    """Give the blocks that did not complete in this iteration either. Of those in inner loops it is not asked."""
    loops = (*turn.plan.places[node.key.block_id].loops, node.key.block_id)
    iteration = (*node.key.iteration, node.memory["n"])
    asked = [name for name in node.memory["silent"] if turn.plan.places[name].loops == loops]
    found = {name: turn.node(NodeKey(name, iteration)) for name in asked}
    return [name for name, spoken in found.items() if spoken is None or spoken.state is not NodeState.COMPLETED]


def _body_ended(turn: Turn, key: NodeKey, block: document.Loop, result: NodeState, error: StepError | None) -> None:
    node = turn.open_node(key)
    n = node.memory["n"]
    if result is NodeState.CANCELLED or (result is NodeState.FAILED and not block.continue_on_error):
        _settle(turn, node, result, error)
        return
    turn.add_output(key, {"_iterations": n + 1}, attempt=n + 1)
    if block.break_on is not None and holds(turn, key, block.break_on, variables={"iteration": n}):
        _settle(turn, node, NodeState.COMPLETED)
        return
    node = _remember(turn, node, n=n + 1, polling=True, silent=_still_silent(turn, node))
    pause = block.poll_interval if n + 1 < block.max_iterations else None
    turn.lists_ended += 1
    if _must_end(turn, key):
        _settle(turn, node, NodeState.CANCELLED)
    elif pause or turn.lists_ended > LISTS_PER_TURN:
        turn.put_timer(key, turn.after_seconds(pause or 0))
    else:
        _begin_iteration(turn, node, block)


def poll(turn: Turn, key: NodeKey) -> bool:
    """Begin the next iteration of a loop whose pause is over; False if it does not pause."""
    block = turn.plan.places[key.block_id].block
    node = turn.node(key)
    if not isinstance(block, document.Loop) or node is None or node.state.is_terminal or not node.memory.get("polling"):
        return False
    turn.drop_timer(key)
    _begin_iteration(turn, node, block)
    return True


# -- for_each --------------------------------------------------------------------------------------------------------


def _enter_for_each(turn: Turn, key: NodeKey, block: document.ForEach, memory: Any) -> None:
    if memory is not None:
        _reopen_for_each(turn, key, block, memory)
        return
    items = _collect(turn, key, block)
    node = _open(turn, key, {"total": len(items), "next": 0, "open": 0, "finished": 0, **_ALL_WELL})
    if items:
        turn.capture_items(key, items)
    _fill(turn, node, block)


_ALL_WELL: Final[Mapping[str, Any]] = {"again": [], "failed": False, "cancelled": False, "error": None}


def _reopen_for_each(turn: Turn, key: NodeKey, block: document.ForEach, memory: Any) -> None:
    again = memory["again"]
    finished = memory["finished"] - len(again)
    node = _open(turn, key, {**memory, "open": len(again), "finished": finished, **_ALL_WELL})
    for index in again:
        _start_list(turn, key.block_id, 0, (*key.iteration, index))
    _fill(turn, node, block)


def _collect(turn: Turn, key: NodeKey, block: document.ForEach) -> tuple[Any, ...]:
    scope = turn.scope(key, references(block.collection, kind="collection"))
    try:
        return tuple(resolve_collection(block.collection, scope)[: block.max_iterations])
    except TemplateError:
        return ()


def _fill(turn: Turn, node: Node, block: document.ForEach) -> None:
    """Start items, in order, until as many are in progress as may be; settle when none is."""
    memory = dict(node.memory)
    may_start = not memory["failed"] and not memory["cancelled"]
    while may_start and memory["open"] < block.concurrency and memory["next"] < memory["total"]:
        _start_list(turn, block.id, 0, (*node.key.iteration, memory["next"]))
        memory["next"] += 1
        memory["open"] += 1
    node = _remember(turn, node, **memory)
    if memory["open"] == 0:
        _settle(turn, node, settled_state(node), StepError.from_json(memory["error"]))


def _item_ended(turn: Turn, key: NodeKey, block: document.ForEach, ended: Ended, result: NodeState) -> None:
    node = turn.open_node(key)
    index = ended.key.iteration[turn.plan.depth(key.block_id)]
    memory = dict(node.memory)
    memory["open"] -= 1
    memory["finished"] += 1
    if result is not NodeState.COMPLETED:
        memory["again"] = [*memory["again"], index]
        memory["failed"] = memory["failed"] or result is NodeState.FAILED
        memory["cancelled"] = memory["cancelled"] or result is NodeState.CANCELLED
        memory["error"] = memory["error"] or (ended.error.to_json() if ended.error else None)
    else:
        progress = {"_index": memory["finished"], "_total": memory["total"], "_item_var": block.item_var}
        turn.add_output(key, progress)
    _fill(turn, replace(node, memory=memory), block)


# -- try_catch -------------------------------------------------------------------------------------------------------


def _enter_try_catch(turn: Turn, key: NodeKey, memory: Any) -> None:
    phase = phase_to_go_on_with(memory)
    origin = memory["origin"] if memory and phase is TryPhase.FINALLY else phase
    caught = memory.get("caught") if memory else None
    fresh = {"phase": phase, "origin": origin, "result": NodeState.COMPLETED, "error": None, "caught": caught}
    node = _open(turn, key, fresh)
    if caught is not None:
        turn.merge_data({"_error": caught})
    if not _start_list(turn, key.block_id, LIST_OF_PHASE[phase], key.iteration):
        _settle(turn, node, NodeState.COMPLETED)


LIST_OF_PHASE: Final[Mapping[TryPhase, int]] = {
    TryPhase.TRY: TRY_LIST,
    TryPhase.CATCH: CATCH_LIST,
    TryPhase.FINALLY: FINALLY_LIST,
}


def phase_to_go_on_with(memory: Mapping[str, Any] | None) -> TryPhase:
    """Say with which list a try_catch begins, or goes on when it is retried: the last one that did not end well."""
    if not memory:
        return TryPhase.TRY
    is_well_but_for_finally = memory["result"] == NodeState.COMPLETED and memory["phase"] == TryPhase.FINALLY
    return TryPhase.FINALLY if is_well_but_for_finally else TryPhase(memory["origin"])


def _try_list_ended(turn: Turn, key: NodeKey, branch: int, result: NodeState, ended: Ended) -> None:
    node = turn.open_node(key)
    if branch == TRY_LIST and result is NodeState.FAILED:
        _catch(turn, node, ended)
    elif branch == FINALLY_LIST:
        state = NodeState.FAILED if result is NodeState.FAILED else NodeState(node.memory["result"])
        _settle(turn, node, state, ended.error or StepError.from_json(node.memory["error"]))
    else:
        _begin_finally(turn, node, result, ended.error)


def _catch(turn: Turn, node: Node, ended: Ended) -> None:
    error = ended.error or StepError(step_id=ended.key.block_id, message="")
    caught = {
        "failed_blocks": [ended.key.block_id],
        "source": "try_catch",
        "block_id": node.key.block_id,
        "message": error.message,
        "details": error.details,
        "step_id": error.step_id,
    }
    turn.merge_data({"_error": caught})
    node = _remember(turn, node, phase=TryPhase.CATCH, origin=TryPhase.CATCH, caught=caught)
    if not _start_list(turn, node.key.block_id, CATCH_LIST, node.key.iteration):
        _begin_finally(turn, node, NodeState.COMPLETED, None)


def _begin_finally(turn: Turn, node: Node, result: NodeState, error: StepError | None) -> None:
    kept = error.to_json() if error is not None else None
    node = _remember(turn, node, phase=TryPhase.FINALLY, result=result, error=kept)
    if not _start_list(turn, node.key.block_id, FINALLY_LIST, node.key.iteration):
        _settle(turn, node, result, error)
