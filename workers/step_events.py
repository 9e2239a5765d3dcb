"""Tells Flower about every step as a task of its own, `step.<handler>`.

One Celery message can stand for many steps (a worker carries on), and a coroutine step ends long after its message.
So the events are not Celery's own but ours, in Celery's form, with the attempt's id as the task's id. They are sent in
bundles by a thread; nothing of the engine depends on them. Of a bundle that nobody would get only the first note is
written: whether somebody listens is told by the answer to it.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import structlog
from celery import Celery
from celery.utils.time import utcoffset

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended
from queues.transport import Channel

log = structlog.get_logger()

FLUSH_SECONDS = 0.25
CLOSE_SECONDS = 2.0
MAX_WAITING = 5000
MAX_RESULT_CHARACTERS = 200


class _Note(NamedTuple):
    """That an attempt has begun, or how it has ended: in a few words, for an output may be large.

    Args:
        at: Seconds since 1970.
        kind: Of Celery's event for the end; None for the beginning.
        text: The beginning of the result, or of the message of a failure.
        runtime: Seconds.
    """

    claim: Claim
    at: float
    kind: str | None = None
    text: str = ""
    runtime: float = 0.0


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
        self._waiting: deque[_Note] = deque(maxlen=MAX_WAITING)
        self._started: dict[UUID, float] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._dispatcher: Any = None

    def started(self, claim: Claim) -> None:
        """Note that an attempt begins."""
        if self._is_enabled:
            now = time.time()
            if len(self._started) >= MAX_WAITING:
                self._started.clear()  # claims that were lost, or let go, never end here
            self._started[claim.step_id] = now
            self._add(_Note(claim=claim, at=now))

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Note how an attempt ended, once its outcome is committed."""
        if self._is_enabled:
            now = time.time()
            runtime = now - self._started.pop(claim.step_id, now)
            kind, text = _told(outcome)
            self._add(_Note(claim=claim, at=now, kind=kind, text=text, runtime=runtime))

    def _add(self, note: _Note) -> None:
        self._waiting.append(note)
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
            self._dispatcher = self._app.events.Dispatcher(self._app.connection_for_write(), hostname=self._hostname)
        notes = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._tell(notes[:1])
        if self._may_be_heard():
            self._tell(notes[1:])

    def _may_be_heard(self) -> bool:
        """Tell whether the last events came to somebody; only Redis says so."""
        channel = self._dispatcher.producer.channel
        return not isinstance(channel, Channel) or channel.listeners > 0

    def _tell(self, notes: Sequence[_Note]) -> None:
        if not notes:
            return
        events = [event for note in notes for event in _events_of(note)]
        clock = self._dispatcher.clock.forward()
        self._dispatcher.clock.adjust(clock + len(events))
        common = {"hostname": self._hostname, "pid": os.getpid(), "utcoffset": utcoffset()}
        # As the dispatcher sends a group; its own way of collecting one takes three times as long.
        self._dispatcher.producer.publish(
            orjson.dumps([{**event, **common, "clock": clock + place} for place, event in enumerate(events)]),
            exchange=self._dispatcher.exchange.name,
            routing_key="task.multi",
            content_type="application/json",
            content_encoding="utf-8",
            declare=[self._dispatcher.exchange],
            headers=self._dispatcher.headers,
            retry=False,
        )

    def close(self) -> None:
        """Send the rest and end the thread; gives up after `CLOSE_SECONDS`.

        Only the thread talks to the broker: connecting to one that is away takes long, and a worker must get to stop.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)


def _told(outcome: Outcome) -> tuple[str, str]:
    """Give the kind of Celery's event for an outcome, and what it says of it."""
    match outcome:
        case Completed(output=output):
            return "task-succeeded", repr(output)[:MAX_RESULT_CHARACTERS]
        case Suspended(duration=duration):
            return "task-succeeded", f"asleep for {duration}"
        case Failed(message=message):
            return "task-failed", message[:MAX_RESULT_CHARACTERS]


def _events_of(note: _Note) -> list[dict[str, Any]]:
    """Give Celery's events for a note."""
    claim = note.claim
    common = {"uuid": str(claim.step_id), "timestamp": note.at}
    match note.kind:
        case None:
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
            route = {"queue": claim.queue, "exchange": "", "routing_key": claim.queue}
            return [
                {"type": "task-sent", **common, **about, **route},
                {"type": "task-received", **common, **about},
                {"type": "task-started", **common},
            ]
        case "task-failed":
            return [{"type": note.kind, **common, "exception": _whole(note.text), "traceback": ""}]
        case kind:
            return [{"type": kind, **common, "result": _whole(note.text), "runtime": note.runtime}]


def _whole(text: str) -> str:
    """Give a text without halves of characters, which JSON cannot carry."""
    return text.encode(errors="replace").decode()
