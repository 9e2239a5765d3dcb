"""The consumer of a worker's hints, where it differs from Celery's."""

from collections.abc import Callable
from typing import Any, ClassVar

import structlog
from celery.worker import consumer

log = structlog.get_logger()


class Consumer(consumer.Consumer):
    """A consumer that no trouble with its broker ends or starves, and that makes no queues for delayed messages.

    kombu knows which errors are those of a lost connection; some reach Celery as others (an AttributeError of a client
    that was closed meanwhile), and end the whole worker with all steps that it runs. So whatever a consumer fails with
    once it has been ready is taken for a lost connection: it begins anew, at most five times at once and then every
    second.

    Celery makes 28 quorum queues as soon as it sees one, at every reconnection, for messages with a countdown or an
    eta; hints have neither.
    """

    loop: Callable[..., None]

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._losses: tuple[type[Exception], ...] = (
            *self.connection_errors,
            *self.channel_errors,  # type: ignore[attr-defined]  # not in its types
        )
        self._take_hints = self.loop
        self.loop = self._take_hints_for_ever

    def _take_hints_for_ever(self, *arguments: Any) -> None:
        try:
            self._take_hints(*arguments)
        except self._losses:
            raise
        except Exception as error:
            log.exception("consumer_failed")
            raise ConnectionAbortedError(f"{type(error).__name__}: {error}") from error

    def on_ready(self) -> None:
        """Note that the worker has been able to start: what fails when it connects again is trouble that passes."""
        super().on_ready()
        self.connection_errors = (Exception,)

    def on_connection_error_after_connected(self, error: Exception) -> None:
        """Drop the connection, whatever stands against that."""
        try:
            super().on_connection_error_after_connected(error)
        except Exception:
            log.warning("connection_not_closed", exc_info=True)
            self.connection = None

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc, valid-type]  # a variable in its types
        """All steps but that one, and a look for messages that do not come."""

        default_steps: ClassVar[list[str]] = [
            *(step for step in consumer.Consumer.Blueprint.default_steps if "delayed_delivery" not in step),
            "queues.starvation:LookForStarvation",
        ]
