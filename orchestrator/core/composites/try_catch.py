"""Try, catch, finally: a list, a list for its failure, and a list for every ending (sequences contract §3.7)."""

from collections.abc import Mapping
from typing import Final

from orchestrator.core.composites.nodes import Memory, open_composite, remember, settle, start_list
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.overlay import ERROR, handled_error
from orchestrator.core.plan import CATCH_LIST, FINALLY_LIST, TRY_LIST
from orchestrator.core.states import NodeState, TryPhase
from orchestrator.core.turn import Ended, Turn

LIST_OF_PHASE: Final[Mapping[TryPhase, int]] = {
    TryPhase.TRY: TRY_LIST,
    TryPhase.CATCH: CATCH_LIST,
    TryPhase.FINALLY: FINALLY_LIST,
}


def enter(turn: Turn, key: NodeKey, memory: Memory | None) -> None:
    """Begin with the try list, or go on with the list that a retry comes back to."""
    phase = phase_to_go_on_with(memory)
    origin = memory["origin"] if memory and phase is TryPhase.FINALLY else phase
    known = memory or {}
    fresh = {"phase": phase, "origin": origin, "result": NodeState.COMPLETED, "error": None}
    node = open_composite(turn, key, {**fresh, "caught": known.get("caught"), "rewritten": known.get("rewritten")})
    if phase is TryPhase.CATCH:
        turn.merge_data(handled_error(node))
    if not start_list(turn, key.block_id, LIST_OF_PHASE[phase], key.iteration):
        settle(turn, node, NodeState.COMPLETED)


def go_on(turn: Turn, node: Node) -> None:
    """Come past the list in progress again; if the definition has lost it, it is over."""
    phase = TryPhase(node.memory["phase"])
    if start_list(turn, node.key.block_id, LIST_OF_PHASE[phase], node.key.iteration):
        return
    if phase is TryPhase.FINALLY:
        settle(turn, node, NodeState(node.memory["result"]), StepError.from_json(node.memory["error"]))
    else:
        _begin_finally(turn, node, NodeState.COMPLETED, None)


def phase_to_go_on_with(memory: Memory | None) -> TryPhase:
    """Say with which list a try_catch begins, or goes on when it is retried: the last one that did not end well."""
    if not memory:
        return TryPhase.TRY
    is_well_but_for_finally = memory["result"] == NodeState.COMPLETED and memory["phase"] == TryPhase.FINALLY
    return TryPhase.FINALLY if is_well_but_for_finally else TryPhase(memory["origin"])


def list_ended(turn: Turn, key: NodeKey, branch: int, result: NodeState, ended: Ended) -> None:
    """Go over to the list that follows: catch after a failed try, finally after both, the end after finally."""
    node = turn.open_node(key)
    if branch == TRY_LIST and result is NodeState.FAILED:
        _catch(turn, node, ended)
    elif branch == FINALLY_LIST:
        state = NodeState.FAILED if result is NodeState.FAILED else NodeState(node.memory["result"])
        settle(turn, node, state, ended.error or StepError.from_json(node.memory["error"]))
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
    turn.merge_data({ERROR: caught})
    node = remember(turn, node, phase=TryPhase.CATCH, origin=TryPhase.CATCH, caught=caught, rewritten=None)
    if not start_list(turn, node.key.block_id, CATCH_LIST, node.key.iteration):
        _begin_finally(turn, node, NodeState.COMPLETED, None)


def _begin_finally(turn: Turn, node: Node, result: NodeState, error: StepError | None) -> None:
    kept = error.to_json() if error is not None else None
    node = remember(turn, node, phase=TryPhase.FINALLY, result=result, error=kept)
    if not start_list(turn, node.key.block_id, FINALLY_LIST, node.key.iteration):
        settle(turn, node, result, error)
