"""How rows read as values of the core, and values as rows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orchestrator.core.changes import ContextPut, TransitionRecorded
from orchestrator.core.letters import Letter, read_content, written_content
from orchestrator.core.model import Claim, Instance, KeptSignal, Node, NodeKey, Parent, Step
from orchestrator.core.states import Activity, InstanceState, NodeState, StepState
from orchestrator.store.sealing import DETAILS_IN_SQL, private, private_beside
from orchestrator.store.session import to_json

INSTANCE_ROW = (
    "id uuid, tenant_id text, namespace text, sequence_id uuid, state text, version bigint, priority smallint, "
    "timezone text, running int, waiting int, scheduled int, is_held boolean, is_cancelling boolean, "
    "parked_reason text, round int, run_id uuid, current_step text, current_step_started_at timestamptz, "
    "total_steps bigint, dry_run boolean, dry_run_auto_approve boolean, started_at timestamptz, "
    "created_at timestamptz, updated_at timestamptz, session_id uuid, budget json, input_tokens bigint, "
    "output_tokens bigint, injected int, parent_id uuid, parent_block_id text, parent_iteration int[], "
    "depth smallint, leaving int, iterations bigint"
)
NODE_MEMORY_IN_SQL = ("next", "open")
"""What `items.in_progress` reads of the memory of a for_each."""
INSTANCE_WIDTH = len(INSTANCE_ROW.split(", "))
NODE_ROW = "block_id text, iteration int[], state text, started_at timestamptz, completed_at timestamptz, memory json"
STEP_ROW = (
    "block_id text, iteration int[], id uuid, state text, activity text, handler text, queue text, "
    "is_queue_named boolean, tenant_id text, priority smallint, attempt int, losses int, entered_at timestamptz, "
    "ready_at timestamptz, wake_at timestamptz, timeout interval, expires_at timestamptz, hinted_at timestamptz, "
    "token uuid, worker_id uuid, worker_name text, slot int, claimed_at timestamptz, claim_epoch int, output json, "
    "started_at timestamptz, deadline_at timestamptz, memory json, cache_key text, former json"
)


def names_of(columns: str) -> str:
    """Give the names of columns that are written with their types.

    >>> names_of("block_id text, iteration int[]")
    'block_id, iteration'
    """
    return ", ".join(column.split()[0] for column in columns.split(", "))


STEP_WIDTH = len(STEP_ROW.split(", "))
INSTANCE_COLUMNS = names_of(INSTANCE_ROW)
NODE_COLUMNS = names_of(NODE_ROW)
STEP_COLUMNS = names_of(STEP_ROW)


def instance_of(row: Sequence[Any]) -> Instance:
    """Read a row of `INSTANCE_COLUMNS`."""
    return Instance(
        id=row[0],
        tenant_id=row[1],
        namespace=row[2],
        sequence_id=row[3],
        state=InstanceState(row[4]),
        version=row[5],
        priority=row[6],
        timezone=row[7],
        running=row[8],
        waiting=row[9],
        scheduled=row[10],
        is_held=row[11],
        is_cancelling=row[12],
        parked_reason=row[13],
        round=row[14],
        run_id=row[15],
        current_step=row[16],
        current_step_started_at=row[17],
        total_steps=row[18],
        dry_run=row[19],
        dry_run_auto_approve=row[20],
        started_at=row[21],
        created_at=row[22],
        updated_at=row[23],
        session_id=row[24],
        budget=row[25],
        input_tokens=row[26],
        output_tokens=row[27],
        injected=row[28],
        parent=None if row[29] is None else Parent(instance_id=row[29], key=key_of(row[30], row[31])),
        depth=row[32],
        leaving=row[33],
        iterations=row[34],
    )


def instance_row(i: Instance) -> tuple[Any, ...]:
    """Write an instance in the order of `INSTANCE_COLUMNS`."""
    return (
        i.id,
        i.tenant_id,
        i.namespace,
        i.sequence_id,
        i.state.value,
        i.version,
        i.priority,
        i.timezone,
        i.running,
        i.waiting,
        i.scheduled,
        i.is_held,
        i.is_cancelling,
        i.parked_reason,
        i.round,
        i.run_id,
        i.current_step,
        i.current_step_started_at,
        i.total_steps,
        i.dry_run,
        i.dry_run_auto_approve,
        i.started_at,
        i.created_at,
        i.updated_at,
        i.session_id,
        to_json(i.budget) if i.budget is not None else None,
        i.input_tokens,
        i.output_tokens,
        i.injected,
        None if i.parent is None else i.parent.instance_id,
        None if i.parent is None else i.parent.key.block_id,
        None if i.parent is None else list(i.parent.key.iteration),
        i.depth,
        i.leaving,
        i.iterations,
    )


def key_of(block_id: str, iteration: Sequence[int]) -> NodeKey:
    """Name a node from its two columns."""
    return NodeKey(block_id, tuple(iteration))


def node_of(row: Sequence[Any]) -> Node:
    """Read a row of `NODE_COLUMNS`."""
    return Node(
        key=key_of(row[0], row[1]),
        state=NodeState(row[2]),
        started_at=row[3],
        completed_at=row[4],
        memory=row[5] or {},
    )


def node_row(instance_id: UUID, node: Node) -> tuple[Any, ...]:
    """Write a node: `instance_id` and `NODE_COLUMNS`."""
    return (
        instance_id,
        node.key.block_id,
        list(node.key.iteration),
        node.state.value,
        node.started_at,
        node.completed_at,
        private_beside(node.memory, NODE_MEMORY_IN_SQL) if node.memory else None,
    )


def step_of(row: Sequence[Any]) -> Step:
    """Read a row of `STEP_COLUMNS`."""
    return Step(
        key=key_of(row[0], row[1]),
        id=row[2],
        state=StepState(row[3]),
        activity=Activity(row[4]),
        handler=row[5],
        queue=row[6],
        is_queue_named=row[7],
        tenant_id=row[8],
        priority=row[9],
        attempt=row[10],
        losses=row[11],
        entered_at=row[12],
        ready_at=row[13],
        wake_at=row[14],
        timeout=row[15],
        expires_at=row[16],
        hinted_at=row[17],
        token=row[18],
        worker_id=row[19],
        worker_name=row[20],
        slot=row[21],
        claimed_at=row[22],
        claim_epoch=row[23],
        output=row[24],
        started_at=row[25],
        deadline_at=row[26],
        memory=row[27],
        cache_key=row[28],
        former=row[29],
    )


def step_row(instance_id: UUID, s: Step) -> tuple[Any, ...]:
    """Write an open step: `instance_id` and `STEP_COLUMNS`."""
    return (
        instance_id,
        s.key.block_id,
        list(s.key.iteration),
        s.id,
        s.state.value,
        s.activity.value,
        s.handler,
        s.queue,
        s.is_queue_named,
        s.tenant_id,
        s.priority,
        s.attempt,
        s.losses,
        s.entered_at,
        s.ready_at,
        s.wake_at,
        s.timeout,
        s.expires_at,
        s.hinted_at,
        s.token,
        s.worker_id,
        s.worker_name,
        s.slot,
        s.claimed_at,
        s.claim_epoch,
        private(s.output) if s.output is not None else None,
        s.started_at,
        s.deadline_at,
        private(s.memory) if s.memory is not None else None,
        s.cache_key,
        private(s.former) if s.former is not None else None,
    )


TRANSITION_ROW = (
    "instance_id uuid, id uuid, tenant_id text, event_type text, from_state text, to_state text, block_id text, "
    "details json, created_at timestamptz"
)


def transition_row(instance: Instance, change: TransitionRecorded) -> tuple[Any, ...]:
    """Write an audit row of an instance in the order of `TRANSITION_ROW`."""
    return (
        instance.id,
        change.id,
        instance.tenant_id,
        change.event,
        change.from_state,
        change.to_state,
        change.block_id,
        private_beside(change.details, DETAILS_IN_SQL),
        change.created_at,
    )


def claim_of(instance_id: UUID, step: Step) -> Claim:
    """Give the claim that a claimed step stands for."""
    if step.token is None or step.claimed_at is None:
        raise ValueError(f"step {step.key!r} is not claimed")
    return Claim(
        instance_id=instance_id,
        step_id=step.id,
        key=step.key,
        token=step.token,
        attempt=step.attempt,
        handler=step.handler,
        queue=step.queue,
        claimed_at=step.claimed_at,
        expires_at=step.expires_at,
        worker_id=step.worker_id,
        losses=step.losses,
    )


def context_of(row: Sequence[Any]) -> ContextPut:
    """Read the columns `data, config`."""
    return ContextPut(data=row[0], config=row[1])


def signal_of(row: Sequence[Any]) -> KeptSignal:
    """Read the columns `id, name, payload`."""
    return KeptSignal(id=row[0], name=row[1], payload=row[2])


LETTER_COLUMNS = "id, sender_id, recipient_id, kind, body"


def letter_of(row: Sequence[Any]) -> Letter:
    """Read a row of `LETTER_COLUMNS`."""
    return Letter(id=row[0], sender=row[1], recipient=row[2], content=read_content(row[3], row[4]))


def letter_row(letter: Letter) -> tuple[Any, ...]:
    """Write a letter in the order of `LETTER_COLUMNS`."""
    kind, body = written_content(letter.content)
    return (letter.id, letter.sender, letter.recipient, kind, private(body))
