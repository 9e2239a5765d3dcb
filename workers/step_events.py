"""Tells Flower about every step as a task of its own, `step.<handler>`.

One Celery message can stand for many steps (a worker carries on), and a coroutine step ends long after its message.
So the events are not Celery's own but ours, in Celery's form, with the attempt's id as the task's id. They are sent in
bundles by a thread; nothing of the engine depends on them.
"""

import threading
import time
from collections import deque
from typing import Any

import structlog
from celery import Celery

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended

log = structlog.get_logger()

FLUSH_SECONDS = 0.25
CLOSE_SECONDS = 2.0
MAX_WAITING = 5000
MAX_RESULT_CHARACTERS = 200


class StepEvents:
    """Collects events and sends them in bundles.

    Args:
        app: The Celery app of this worker.
        hostname: The worker's name, as Flower shows it.
        is_enabled: False sends nothing.
    """

    def __init__(self, app: Celery, hostname: str, *, is_enabled: bool) -> None:
        self._app = app
        self._hostname = hostname
        self._is_enabled = is_enabled
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_WAITING)
        self._started: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._dispatcher: Any = None

    def started(self, claim: Claim) -> None:
        """Note that an attempt begins."""
        if not self._is_enabled:
            return
        now = time.time()
        task_id = str(claim.step_id)
        self._started[task_id] = now
        about = {
            "name": f"step.{claim.handler}",
            "args": repr((str(claim.instance_id), claim.key.block_id)),
            "kwargs": "{}",
            "root_id": str(claim.instance_id),
            "parent_id": None,
            "retries": claim.attempt,
            "eta": None,
            "expires": None,
        }
        self._add("task-sent", task_id, now, queue=claim.queue, exchange="", routing_key=claim.queue, **about)
        self._add("task-received", task_id, now, **about)
        self._add("task-started", task_id, now)

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Note how an attempt ended, once its outcome is committed."""
        if not self._is_enabled:
            return
        now = time.time()
        task_id = str(claim.step_id)
        runtime = now - self._started.pop(task_id, now)
        match outcome:
            case Completed(output=output):
                result = repr(output)[:MAX_RESULT_CHARACTERS]
                self._add("task-succeeded", task_id, now, result=result, runtime=runtime)
            case Suspended(duration=duration):
                self._add("task-succeeded", task_id, now, result=f"asleep for {duration}", runtime=runtime)
            case Failed(message=message):
                self._add("task-failed", task_id, now, exception=message[:MAX_RESULT_CHARACTERS], traceback="")

    def _add(self, kind: str, task_id: str, timestamp: float, **fields: Any) -> None:
        self._waiting.append((kind, {"uuid": task_id, "timestamp": timestamp, **fields}))
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_for_ever, name="step-events", daemon=True)
            self._thread.start()

    def _send_for_ever(self) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Send what has been collected; what cannot be sent is dropped."""
        if not self._waiting:
            return
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - watching is a service to people, not a duty of the engine
            log.debug("step_events_dropped", error=str(error))
            self._dispatcher = None

    def _send(self) -> None:
        if self._dispatcher is None:
            self._dispatcher = self._app.events.Dispatcher(
                self._app.connection_for_write(),
                hostname=self._hostname,
                buffer_while_offline=False,
                buffer_group=frozenset({"task"}),
                buffer_limit=MAX_WAITING + 1,
            )
        while self._waiting:
            kind, fields = self._waiting.popleft()
            self._dispatcher.send(kind, **fields)
        self._dispatcher.flush(errors=False)

    def close(self) -> None:
        """Send the rest and end the thread; gives up after `CLOSE_SECONDS`.

        Only the thread talks to the broker: connecting to one that is away takes long, and a worker must get to stop.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
