"""Shapes of the requests and answers that change what an instance still has to do (contract, api §9, §10.5)."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool

from orchestrator.api.bulk_shapes import InstanceFilter
from orchestrator.api.shapes import Shape
from orchestrator.core.states import InstanceState

Position = Annotated[int, Field(strict=True, lt=2**31)]


class InjectBlocks(Shape):
    """Blocks that join the root list; `position` counts among those that have not started, none is the end."""

    blocks: Any = None
    position: Position | None = None


class Injected(Shape):
    """The ids of the blocks that joined, and how many have joined in all."""

    injected_block_ids: list[str]
    position: int | None
    total_injected: int


class ResumeFrom(Shape):
    """What a flow is told before it goes on: top-level keys for its data, and signals."""

    context: dict[str, Any] | None = None
    signals: list[Any] | None = None


class ResumedFromBlock(Shape):
    """A flow that goes on from a root block."""

    id: UUID
    state: InstanceState
    resumed_from: str
    outputs_deleted: int
    signals_enqueued: int


class ForkInstance(Shape):
    """Where a copy of a flow goes on, and what it is told before; a dry run has no effects outside."""

    from_block_id: str
    context: dict[str, Any] | None = None
    dry_run: StrictBool = True
    signals: list[Any] | None = None


class ForkedInstance(Shape):
    """A copy of a flow, the root blocks whose rows it has taken over, and those it runs."""

    id: UUID
    forked_from: UUID
    state: InstanceState
    copied_blocks: list[str]
    rerun_blocks: list[str]
    dry_run: bool


class MigrateInstance(Shape):
    """An instance, and the version it goes over to."""

    instance_id: UUID
    target_sequence_id: UUID


class MigratedInstance(Shape):
    """What an instance left, and what it went over to."""

    migrated: bool
    instance_id: UUID
    from_sequence_id: UUID
    to_sequence_id: UUID


class MigrateInstances(Shape):
    """Instances by a filter, and the version they go over to; a dry run only counts."""

    filter: InstanceFilter
    target_sequence_id: UUID
    dry_run: StrictBool = False


class MigratedInstances(Shape):
    """How many instances were meant; those that have ended, or are there already, are skipped."""

    matched: int
    migrated: int
    skipped: int
    failed: int


class SetStatus(Shape):
    """Where a version stands from now on."""

    status: Literal["draft", "staging", "production", "unpublished"]
