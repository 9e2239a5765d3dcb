"""Children: a block that runs another sequence as an instance of its own (sequences contract §3.8).

The block is a node that waits; what it waits for is in its `memory`:

    child    id of the child; None while the instance is held and the child is not started yet
    error    why the block has failed

The child is created in the transaction that reaches the block, so it exists if and only if the block waits for it: a
crash in between leaves neither. It is due at once and starts when its timer fires, which the committing process does
by itself. When the child ends, in whatever way, its own decision writes a letter to the block. What the parent tells
its child ("end, nobody waits for you") is a letter too.
"""

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from orchestrator.core.context import context_bytes
from orchestrator.core.events import ChildEnded
from orchestrator.core.letters import ParentLetsGo
from orchestrator.core.model import Instance, Node, NodeKey, Parent, SequenceName, StepError
from orchestrator.core.states import InstanceState, NodeState
from orchestrator.core.steps import end_node
from orchestrator.core.turn import Ended, Turn
from sequences import document
from sequences.references import References, references
from sequences.schemas import compile_schema
from sequences.templates import TemplateError, compile_template

MAX_DEPTH: Final = 16
MAX_VIOLATIONS: Final = 10


class _Stillborn(Exception):
    """The child cannot be made; the block fails for good."""


def enter_child(turn: Turn, key: NodeKey, block: document.SubSequence) -> None:
    """Reach the block: start its child, or wait for the end of a pause to do so."""
    former = turn.node(key) if turn.instance.round > 0 else None
    started_at = former.started_at if former is not None and former.started_at is not None else turn.now
    node = Node(key=key, state=NodeState.WAITING, started_at=started_at, memory={"child": None})
    if turn.instance.is_held:
        turn.put_node(node)
        return
    _start_child(turn, node, block)


def _start_child(turn: Turn, node: Node, block: document.SubSequence) -> None:
    try:
        data = _input(turn, node.key, block)
        child = _child(turn, node.key, block, data)
    except _Stillborn as reason:
        error = StepError(step_id=node.key.block_id, message=str(reason))
        end_node(turn, node.key, NodeState.FAILED, started_at=node.started_at, error=error)
        return
    turn.create_child(child, data)
    turn.put_node(replace(node, memory={"child": str(child.id)}))
    turn.await_outsider(+1)


def _input(turn: Turn, key: NodeKey, block: document.SubSequence) -> Any:
    scope = turn.scope(key, references(block.input, kind="template") | References(config=True))
    try:
        data = compile_template(block.input).render(scope)
    except TemplateError as error:
        raise _Stillborn(str(error)) from error
    data = {} if data is None else data
    size = context_bytes(data, scope.config)
    if size > turn.facts.max_context_bytes:
        limit = turn.facts.max_context_bytes
        raise _Stillborn(f"the context of the child would be {size} bytes; the limit is {limit}")
    return data


def _child(turn: Turn, key: NodeKey, block: document.SubSequence, data: Any) -> Instance:
    parent = turn.instance
    if parent.depth >= MAX_DEPTH:
        raise _Stillborn(f"sub-sequences are nested deeper than {MAX_DEPTH}")
    wanted = turn.slice.sequence(SequenceName(block.sequence_name, block.version))
    if wanted is None:
        version = "" if block.version is None else f" version {block.version}"
        raise _Stillborn(f"sub_sequence not found: {block.sequence_name}{version}")
    if wanted.input_schema is not None and (found := compile_schema(wanted.input_schema).violations(data)):
        raise _Stillborn("input failed input_schema validation: " + "; ".join(found[:MAX_VIOLATIONS]))
    return Instance(
        id=turn.new_id(),
        tenant_id=parent.tenant_id,
        namespace=parent.namespace,
        sequence_id=wanted.sequence_id,
        state=InstanceState.SCHEDULED,
        priority=parent.priority,
        timezone=parent.timezone,
        scheduled=1,
        run_id=turn.new_id(),
        dry_run=parent.dry_run,
        dry_run_auto_approve=parent.dry_run_auto_approve,
        session_id=parent.session_id,
        budget=parent.budget,
        created_at=turn.now,
        updated_at=turn.now,
        parent=Parent(instance_id=parent.id, key=key),
        depth=parent.depth + 1,
    )


def child_ended(turn: Turn, event: ChildEnded) -> bool:
    """Go on after a child; False if the block no longer waits for it."""
    node = turn.node(event.key)
    if node is None or not waits(node) or node.memory["child"] != str(event.child):
        return False
    turn.await_outsider(-1)
    if event.state is InstanceState.COMPLETED:
        turn.add_output(node.key, turn.slice.rows_of_child(event.child))
        _settle(turn, node, NodeState.COMPLETED)
    else:
        _settle(turn, node, NodeState.FAILED, _error(node, event))
    return True


def _error(node: Node, event: ChildEnded) -> StepError:
    reason = f": {event.error.message}" if event.error is not None and event.error.message else ""
    details: dict[str, Any] = {"child_instance_id": str(event.child), "state": event.state.value}
    if event.error is not None:
        details |= {"child_error": event.error.to_json()}
    message = f"child instance {event.child} {_ENDED_AS[event.state]}{reason}"
    return StepError(step_id=node.key.block_id, message=message, details=details)


_ENDED_AS: Final = {InstanceState.FAILED: "failed", InstanceState.CANCELLED: "was cancelled"}


def _settle(turn: Turn, node: Node, state: NodeState, error: StepError | None = None) -> None:
    memory = {**node.memory, "error": error.to_json()} if error is not None else node.memory
    turn.put_node(replace(node, state=state, completed_at=turn.now, memory=memory))
    turn.todo.append(Ended(node.key, state, error))


def waits(node: Node) -> bool:
    """Tell whether a node waits for a child, or for the end of a pause to start one."""
    return node.state is NodeState.WAITING and "child" in node.memory


def abandon(turn: Turn, node: Node) -> None:
    """End the wait of a block that is no longer wanted; its child is told to end."""
    let_go(turn, node)
    _settle(turn, node, NodeState.CANCELLED)


def let_go(turn: Turn, node: Node) -> None:
    """Tell the child of a waiting block to end, and count the wait no longer; the node is the caller's to close."""
    if (child := node.memory["child"]) is not None:
        turn.await_outsider(-1)
        turn.write_letter(UUID(child), ParentLetsGo())


def start_held(turn: Turn) -> None:
    """Start the children that a pause has kept back."""
    for node in turn.open_nodes():
        if waits(node) and node.memory["child"] is None:
            block = turn.plan.places[node.key.block_id].block
            if not isinstance(block, document.SubSequence):
                raise TypeError(f"block {block.id!r} starts no child")
            _start_child(turn, node, block)


def tell_parent(turn: Turn, state: InstanceState) -> None:
    """Let the block that waits for this instance know that it has ended."""
    parent = turn.instance.parent
    if parent is not None:
        error = turn.ending.error if turn.ending is not None else None
        news = ChildEnded(key=parent.key, child=turn.instance.id, state=state, error=error)
        turn.write_letter(parent.instance_id, news)
