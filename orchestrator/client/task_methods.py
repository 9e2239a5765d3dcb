"""Methods of both clients for workers: claim, report, look."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from orchestrator.client.calls import Id
from orchestrator.client.forms import part, read_one, read_rows, send_blindly
from orchestrator.client.task_calls import TaskEvent, TaskStats, WorkerTask, lease
from orchestrator.client.transport import Call

Result = TypeVar("Result")


class TaskMethods(ABC):
    """The worker protocol; part of `Client`."""

    tenant: str | None

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    def claim_tasks(
        self, worker_id: str, handler: str, *, queue: str | None = None, limit: int = 1, version: str | None = None
    ) -> tuple[WorkerTask, ...]:
        """Claim tasks of a handler, the most urgent first; empty when there is nothing to do.

        Not sent again after a lost connection: what was claimed goes back to its queue when its lease is over.

        Args:
            worker_id: Names this worker.
            queue: Only tasks of that queue; None for tasks without one.
            version: Of the worker, for least versions.
        """
        body = {"worker_id": worker_id, "handler_name": handler, "limit": limit, "version": version}
        path = "/workers/tasks/poll"
        if queue is not None:
            path, body["queue_name"] = f"{path}/queue", queue
        return self._do(
            Call(
                method="POST",
                path=path,
                body=body,
                read=lambda _status, tasks: tuple(WorkerTask.model_validate(each) for each in tasks),
            )
        )

    def complete_task(self, task: WorkerTask, output: Any = None) -> None:
        """Report the result of a claimed task. Raises Conflict if the lease was lost: drop the result."""
        self._do(send_blindly("POST", f"/workers/tasks/{task.id}/complete", {**lease(task), "output": output}))

    def fail_task(self, task: WorkerTask, message: str, *, retryable: bool = False) -> None:
        """Report the failure of a claimed task. Raises Conflict if the lease was lost."""
        body = {**lease(task), "message": message, "retryable": retryable}
        self._do(send_blindly("POST", f"/workers/tasks/{task.id}/fail", body))

    def heartbeat(self, task: WorkerTask) -> None:
        """Keep the lease of a claimed task. Raises Conflict if it was lost."""
        path = f"/workers/tasks/{task.id}/heartbeat"
        self._do(send_blindly("POST", path, lease(task), may_repeat=True))

    def checkpoint_task(self, task: WorkerTask, checkpoint: Any) -> WorkerTask:
        """Keep the lease, and leave something for whoever continues; returns the task for the next report.

        Raises:
            Conflict: The lease was lost, or another checkpoint was left meanwhile.
        """
        path = f"/workers/tasks/{task.id}/heartbeat"
        body = {**lease(task), "checkpoint": checkpoint, "checkpoint_seq": task.checkpoint_seq}
        return self._do(
            Call(
                method="POST",
                path=path,
                body=body,
                read=lambda _status, said: task.model_copy(update={"checkpoint_seq": int(said["checkpoint_seq"])}),
            )
        )

    def task_events(self, task_id: Id) -> tuple[TaskEvent, ...]:
        """Read what has happened to a task: claims, failures, lost leases. Raises NotFound."""
        return self._do(read_rows(f"/workers/tasks/{part(task_id)}/attempts", TaskEvent))

    def task_stats(self, *, queue: str | None = None, handler: str | None = None) -> TaskStats:
        """Count tasks by state and by handler."""
        query = {"queue_name": queue, "handler_name": handler}
        return self._do(read_one("/workers/tasks/stats", TaskStats, query))


class AsyncTaskMethods(ABC):
    """The worker protocol; part of `AsyncClient`."""

    tenant: str | None

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    async def claim_tasks(
        self, worker_id: str, handler: str, *, queue: str | None = None, limit: int = 1, version: str | None = None
    ) -> tuple[WorkerTask, ...]:
        """Claim tasks of a handler, the most urgent first; empty when there is nothing to do.

        Not sent again after a lost connection: what was claimed goes back to its queue when its lease is over.

        Args:
            worker_id: Names this worker.
            queue: Only tasks of that queue; None for tasks without one.
            version: Of the worker, for least versions.
        """
        body = {"worker_id": worker_id, "handler_name": handler, "limit": limit, "version": version}
        path = "/workers/tasks/poll"
        if queue is not None:
            path, body["queue_name"] = f"{path}/queue", queue
        return await self._do(
            Call(
                method="POST",
                path=path,
                body=body,
                read=lambda _status, tasks: tuple(WorkerTask.model_validate(each) for each in tasks),
            )
        )

    async def complete_task(self, task: WorkerTask, output: Any = None) -> None:
        """Report the result of a claimed task. Raises Conflict if the lease was lost: drop the result."""
        await self._do(send_blindly("POST", f"/workers/tasks/{task.id}/complete", {**lease(task), "output": output}))

    async def fail_task(self, task: WorkerTask, message: str, *, retryable: bool = False) -> None:
        """Report the failure of a claimed task. Raises Conflict if the lease was lost."""
        body = {**lease(task), "message": message, "retryable": retryable}
        await self._do(send_blindly("POST", f"/workers/tasks/{task.id}/fail", body))

    async def heartbeat(self, task: WorkerTask) -> None:
        """Keep the lease of a claimed task. Raises Conflict if it was lost."""
        path = f"/workers/tasks/{task.id}/heartbeat"
        await self._do(send_blindly("POST", path, lease(task), may_repeat=True))

    async def checkpoint_task(self, task: WorkerTask, checkpoint: Any) -> WorkerTask:
        """Keep the lease, and leave something for whoever continues; returns the task for the next report.

        Raises:
            Conflict: The lease was lost, or another checkpoint was left meanwhile.
        """
        path = f"/workers/tasks/{task.id}/heartbeat"
        body = {**lease(task), "checkpoint": checkpoint, "checkpoint_seq": task.checkpoint_seq}
        return await self._do(
            Call(
                method="POST",
                path=path,
                body=body,
                read=lambda _status, said: task.model_copy(update={"checkpoint_seq": int(said["checkpoint_seq"])}),
            )
        )

    async def task_events(self, task_id: Id) -> tuple[TaskEvent, ...]:
        """Read what has happened to a task: claims, failures, lost leases. Raises NotFound."""
        return await self._do(read_rows(f"/workers/tasks/{part(task_id)}/attempts", TaskEvent))

    async def task_stats(self, *, queue: str | None = None, handler: str | None = None) -> TaskStats:
        """Count tasks by state and by handler."""
        query = {"queue_name": queue, "handler_name": handler}
        return await self._do(read_one("/workers/tasks/stats", TaskStats, query))
