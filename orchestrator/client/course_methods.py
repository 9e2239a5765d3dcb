"""Methods of both clients about the course of instances: changed, copied, looked into, done again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from orchestrator.client.calls import Id, instance_path
from orchestrator.client.course_calls import (
    BatchResult,
    Checkpoint,
    Comparison,
    Effect,
    FailureGroup,
    Fork,
    ForkPreview,
    GroupRetried,
    Injected,
    ResumedFrom,
    Timeline,
    filter_of,
)
from orchestrator.client.forms import part, read_one, read_rows, send, send_blindly, send_counted
from orchestrator.client.shapes import Instance
from orchestrator.client.shapes import StoredSequence as Made
from orchestrator.client.transport import Call

Result = TypeVar("Result")


class CourseMethods(ABC):
    """What changes the course of instances; part of `Client`."""

    tenant: str | None

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    # -- changing ------------------------------------------------------------------------------------------------

    def set_state(self, instance_id: Id, state: str, *, not_before: datetime | None = None) -> None:
        """Set the state of an instance, where the life cycle has an arrow; its work in progress ends.

        Raises:
            InvalidArgument: There is no such arrow.
            NotFound: There is no such instance.
        """
        body = {"state": state} if not_before is None else {"state": state, "next_fire_at": not_before}
        self._do(send_blindly("PATCH", f"{instance_path(instance_id)}/state", body))

    def replace_context(self, instance_id: Id, data: Any, config: Any = None) -> None:
        """Put another context in the place of an instance's. Raises NotFound, PayloadTooLarge."""
        body = {"context": {"data": data, "config": config}}
        self._do(send_blindly("PATCH", f"{instance_path(instance_id)}/context", body, may_repeat=True))

    def inject(self, instance_id: Id, blocks: Sequence[Mapping[str, Any]], *, position: int | None = None) -> Injected:
        """Let blocks join the root list of an instance. Raises InvalidArgument, NotFound.

        Args:
            position: Among the root blocks that have not started; None for the end.
        """
        body = {"blocks": [dict(each) for each in blocks], "position": position}
        return self._do(send("POST", f"{instance_path(instance_id)}/inject-blocks", Injected, body))

    def resume_from(
        self,
        instance_id: Id,
        block_id: str,
        *,
        data: Mapping[str, Any] | None = None,
        signals: Sequence[Mapping[str, Any]] = (),
    ) -> ResumedFrom:
        """Let an instance that is paused or has ended go on from a root block.

        Args:
            data: Merged into `context.data` before.
            signals: `{"signal_type", "payload"}`, delivered before.

        Raises:
            InvalidArgument: It is running, or the block is none of its root blocks.
        """
        path = f"{instance_path(instance_id)}/resume-from/{part(block_id)}"
        body = {"context": None if data is None else dict(data), "signals": [dict(each) for each in signals]}
        return self._do(send("POST", path, ResumedFrom, body))

    def fork(
        self, instance_id: Id, block_id: str, *, data: Mapping[str, Any] | None = None, dry_run: bool = True
    ) -> Fork:
        """Start a copy of an instance that goes on from a root block. Raises InvalidArgument, NotFound."""
        body = {"from_block_id": block_id, "context": None if data is None else dict(data), "dry_run": dry_run}
        return self._do(send("POST", f"{instance_path(instance_id)}/fork", Fork, body))

    def preview_fork(self, instance_id: Id, block_id: str) -> ForkPreview:
        """Say what a fork would take over and what it would run. Raises InvalidArgument, NotFound."""
        path = f"{instance_path(instance_id)}/fork-preview"
        return self._do(read_one(path, ForkPreview, {"from_block_id": block_id}))

    def compare(self, instance_id: Id, other_id: Id) -> Comparison:
        """Tell in what two instances differ. Raises NotFound."""
        return self._do(read_one(f"{instance_path(instance_id)}/compare/{part(other_id)}", Comparison))

    # -- reading more --------------------------------------------------------------------------------------------

    def children(self, instance_id: Id) -> tuple[Instance, ...]:
        """Read the instances that blocks of this one have started, the oldest first. Raises NotFound."""
        return self._do(read_rows(f"{instance_path(instance_id)}/children", Instance))

    def effects(self, instance_id: Id) -> tuple[Effect, ...]:
        """Read what the steps of an instance have done outside of it, in order. Raises NotFound."""
        return self._do(read_rows(f"{instance_path(instance_id)}/effects", Effect))

    def timeline(self, instance_id: Id, *, outputs: bool = False, offset: int = 0, limit: int = 200) -> Timeline:
        """Read changes of state, and stored rows a page at a time, the oldest first. Raises NotFound."""
        query = {"include_outputs": "true" if outputs else None, "offset": offset, "limit": limit}
        return self._do(read_one(f"{instance_path(instance_id)}/timeline", Timeline, query))

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save_checkpoint(self, instance_id: Id, data: Any) -> UUID:
        """Keep a snapshot; returns its id. Raises NotFound, PayloadTooLarge."""
        path = f"{instance_path(instance_id)}/checkpoints"
        return self._do(send("POST", path, Made, {"checkpoint_data": data})).id

    def list_checkpoints(self, instance_id: Id) -> tuple[Checkpoint, ...]:
        """List the snapshots, the newest first; at most 100. Raises NotFound."""
        return self._do(read_rows(f"{instance_path(instance_id)}/checkpoints", Checkpoint))

    def latest_checkpoint(self, instance_id: Id) -> Checkpoint:
        """Read the newest snapshot. Raises NotFound."""
        return self._do(read_one(f"{instance_path(instance_id)}/checkpoints/latest", Checkpoint))

    def prune_checkpoints(self, instance_id: Id, keep: int) -> int:
        """Delete all snapshots but the newest ones; returns how many were deleted. Raises NotFound."""
        return self._do(send_counted("POST", f"{instance_path(instance_id)}/checkpoints/prune", {"keep": keep}))

    # -- many at once --------------------------------------------------------------------------------------------

    def set_states(
        self,
        state: str,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        states: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Set the state of all instances that match, without looking at arrows; returns how many."""
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=states, metadata=metadata)
        return self._do(send_counted("PATCH", "/instances/bulk/state", {"filter": meant, "state": state}))

    def reschedule(
        self,
        offset_seconds: int,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Put off all scheduled instances that match, or bring them forward; returns how many."""
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=None, metadata=metadata)
        body = {"filter": meant, "offset_secs": offset_seconds}
        return self._do(send_counted("PATCH", "/instances/bulk/reschedule", body))

    def batch_action(
        self,
        action: str,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        states: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        signal_name: str | None = None,
        payload: Any = None,
        dry_run: bool = False,
        limit: int = 1000,
    ) -> BatchResult:
        """Do something to all instances that match.

        Args:
            action: `retry`, `pause`, `resume`, `cancel` or `signal`.
            signal_name: Of the signal for the flows, if the action is one.
            dry_run: Only count.
        """
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=states, metadata=metadata)
        body = {"filter": meant, "action": action, "payload": payload, "dry_run": dry_run, "limit": limit}
        if signal_name is not None:
            body["signal_type"] = {"custom": signal_name}
        return self._do(send("POST", "/instances/batch-action", BatchResult, body))

    # -- failures ------------------------------------------------------------------------------------------------

    def dead_letters(self, *, offset: int = 0, limit: int = 100) -> tuple[Instance, ...]:
        """List failed instances, the newest change first; at most 1000."""
        return self._do(read_rows("/instances/dlq", Instance, {"offset": offset, "limit": limit}))

    def failure_groups(self) -> tuple[FailureGroup, ...]:
        """Group the failed instances by cause, the largest group first."""
        return self._do(read_rows("/instances/dlq/groups", FailureGroup))

    def retry_group(
        self, fingerprint: str, *, verified: Id | None = None, force: bool = False, limit: int = 1000
    ) -> GroupRetried:
        """Open failed instances with one cause again: one, as a sample, unless a sample is known to come through.

        Args:
            verified: An instance of the group that has completed since; then many are opened.
            force: Open many without one.

        Raises:
            NotFound: No instance has failed of that cause.
        """
        body: dict[str, Any] = {"mode": "sample", "force": force}
        if verified is not None or force:
            verified_id = None if verified is None else str(verified)
            body = {"mode": "bulk", "sample_verified_instance_id": verified_id, "force": force, "limit": limit}
        return self._do(send("POST", f"/instances/dlq/groups/{part(fingerprint)}/retry", GroupRetried, body))


class AsyncCourseMethods(ABC):
    """What changes the course of instances; part of `AsyncClient`."""

    tenant: str | None

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    # -- changing ------------------------------------------------------------------------------------------------

    async def set_state(self, instance_id: Id, state: str, *, not_before: datetime | None = None) -> None:
        """Set the state of an instance, where the life cycle has an arrow; its work in progress ends.

        Raises:
            InvalidArgument: There is no such arrow.
            NotFound: There is no such instance.
        """
        body = {"state": state} if not_before is None else {"state": state, "next_fire_at": not_before}
        await self._do(send_blindly("PATCH", f"{instance_path(instance_id)}/state", body))

    async def replace_context(self, instance_id: Id, data: Any, config: Any = None) -> None:
        """Put another context in the place of an instance's. Raises NotFound, PayloadTooLarge."""
        body = {"context": {"data": data, "config": config}}
        await self._do(send_blindly("PATCH", f"{instance_path(instance_id)}/context", body, may_repeat=True))

    async def inject(
        self, instance_id: Id, blocks: Sequence[Mapping[str, Any]], *, position: int | None = None
    ) -> Injected:
        """Let blocks join the root list of an instance. Raises InvalidArgument, NotFound.

        Args:
            position: Among the root blocks that have not started; None for the end.
        """
        body = {"blocks": [dict(each) for each in blocks], "position": position}
        return await self._do(send("POST", f"{instance_path(instance_id)}/inject-blocks", Injected, body))

    async def resume_from(
        self,
        instance_id: Id,
        block_id: str,
        *,
        data: Mapping[str, Any] | None = None,
        signals: Sequence[Mapping[str, Any]] = (),
    ) -> ResumedFrom:
        """Let an instance that is paused or has ended go on from a root block.

        Args:
            data: Merged into `context.data` before.
            signals: `{"signal_type", "payload"}`, delivered before.

        Raises:
            InvalidArgument: It is running, or the block is none of its root blocks.
        """
        path = f"{instance_path(instance_id)}/resume-from/{part(block_id)}"
        body = {"context": None if data is None else dict(data), "signals": [dict(each) for each in signals]}
        return await self._do(send("POST", path, ResumedFrom, body))

    async def fork(
        self, instance_id: Id, block_id: str, *, data: Mapping[str, Any] | None = None, dry_run: bool = True
    ) -> Fork:
        """Start a copy of an instance that goes on from a root block. Raises InvalidArgument, NotFound."""
        body = {"from_block_id": block_id, "context": None if data is None else dict(data), "dry_run": dry_run}
        return await self._do(send("POST", f"{instance_path(instance_id)}/fork", Fork, body))

    async def preview_fork(self, instance_id: Id, block_id: str) -> ForkPreview:
        """Say what a fork would take over and what it would run. Raises InvalidArgument, NotFound."""
        path = f"{instance_path(instance_id)}/fork-preview"
        return await self._do(read_one(path, ForkPreview, {"from_block_id": block_id}))

    async def compare(self, instance_id: Id, other_id: Id) -> Comparison:
        """Tell in what two instances differ. Raises NotFound."""
        return await self._do(read_one(f"{instance_path(instance_id)}/compare/{part(other_id)}", Comparison))

    # -- reading more --------------------------------------------------------------------------------------------

    async def children(self, instance_id: Id) -> tuple[Instance, ...]:
        """Read the instances that blocks of this one have started, the oldest first. Raises NotFound."""
        return await self._do(read_rows(f"{instance_path(instance_id)}/children", Instance))

    async def effects(self, instance_id: Id) -> tuple[Effect, ...]:
        """Read what the steps of an instance have done outside of it, in order. Raises NotFound."""
        return await self._do(read_rows(f"{instance_path(instance_id)}/effects", Effect))

    async def timeline(self, instance_id: Id, *, outputs: bool = False, offset: int = 0, limit: int = 200) -> Timeline:
        """Read changes of state, and stored rows a page at a time, the oldest first. Raises NotFound."""
        query = {"include_outputs": "true" if outputs else None, "offset": offset, "limit": limit}
        return await self._do(read_one(f"{instance_path(instance_id)}/timeline", Timeline, query))

    # -- checkpoints ---------------------------------------------------------------------------------------------

    async def save_checkpoint(self, instance_id: Id, data: Any) -> UUID:
        """Keep a snapshot; returns its id. Raises NotFound, PayloadTooLarge."""
        path = f"{instance_path(instance_id)}/checkpoints"
        return (await self._do(send("POST", path, Made, {"checkpoint_data": data}))).id

    async def list_checkpoints(self, instance_id: Id) -> tuple[Checkpoint, ...]:
        """List the snapshots, the newest first; at most 100. Raises NotFound."""
        return await self._do(read_rows(f"{instance_path(instance_id)}/checkpoints", Checkpoint))

    async def latest_checkpoint(self, instance_id: Id) -> Checkpoint:
        """Read the newest snapshot. Raises NotFound."""
        return await self._do(read_one(f"{instance_path(instance_id)}/checkpoints/latest", Checkpoint))

    async def prune_checkpoints(self, instance_id: Id, keep: int) -> int:
        """Delete all snapshots but the newest ones; returns how many were deleted. Raises NotFound."""
        return await self._do(send_counted("POST", f"{instance_path(instance_id)}/checkpoints/prune", {"keep": keep}))

    # -- many at once --------------------------------------------------------------------------------------------

    async def set_states(
        self,
        state: str,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        states: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Set the state of all instances that match, without looking at arrows; returns how many."""
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=states, metadata=metadata)
        return await self._do(send_counted("PATCH", "/instances/bulk/state", {"filter": meant, "state": state}))

    async def reschedule(
        self,
        offset_seconds: int,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Put off all scheduled instances that match, or bring them forward; returns how many."""
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=None, metadata=metadata)
        body = {"filter": meant, "offset_secs": offset_seconds}
        return await self._do(send_counted("PATCH", "/instances/bulk/reschedule", body))

    async def batch_action(
        self,
        action: str,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        states: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        signal_name: str | None = None,
        payload: Any = None,
        dry_run: bool = False,
        limit: int = 1000,
    ) -> BatchResult:
        """Do something to all instances that match.

        Args:
            action: `retry`, `pause`, `resume`, `cancel` or `signal`.
            signal_name: Of the signal for the flows, if the action is one.
            dry_run: Only count.
        """
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=states, metadata=metadata)
        body = {"filter": meant, "action": action, "payload": payload, "dry_run": dry_run, "limit": limit}
        if signal_name is not None:
            body["signal_type"] = {"custom": signal_name}
        return await self._do(send("POST", "/instances/batch-action", BatchResult, body))

    # -- failures ------------------------------------------------------------------------------------------------

    async def dead_letters(self, *, offset: int = 0, limit: int = 100) -> tuple[Instance, ...]:
        """List failed instances, the newest change first; at most 1000."""
        return await self._do(read_rows("/instances/dlq", Instance, {"offset": offset, "limit": limit}))

    async def failure_groups(self) -> tuple[FailureGroup, ...]:
        """Group the failed instances by cause, the largest group first."""
        return await self._do(read_rows("/instances/dlq/groups", FailureGroup))

    async def retry_group(
        self, fingerprint: str, *, verified: Id | None = None, force: bool = False, limit: int = 1000
    ) -> GroupRetried:
        """Open failed instances with one cause again: one, as a sample, unless a sample is known to come through.

        Args:
            verified: An instance of the group that has completed since; then many are opened.
            force: Open many without one.

        Raises:
            NotFound: No instance has failed of that cause.
        """
        body: dict[str, Any] = {"mode": "sample", "force": force}
        if verified is not None or force:
            verified_id = None if verified is None else str(verified)
            body = {"mode": "bulk", "sample_verified_instance_id": verified_id, "force": force, "limit": limit}
        return await self._do(send("POST", f"/instances/dlq/groups/{part(fingerprint)}/retry", GroupRetried, body))
