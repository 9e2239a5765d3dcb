"""Listens for hints on a connection of its own, past Celery's parent process.

What a Celery worker does with a message (read it, note it as unacknowledged, make a request of it, hand it through a
pipe to a child) takes milliseconds. A hint may be lost at any time, so of all that it needs nothing: a child that has
nothing to do takes it off the list itself. Messages that are no hints are put back for the parent.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from queues import transport
from queues.messages import NoHint, unpacked

log = structlog.get_logger()

LISTEN_SECONDS: Final = 1
"""How long Redis keeps a question before it says that there is nothing: so much later a child may notice a stop."""


class Listener:
    """Takes hints off some queues. For one thread of one process, made after the fork.

    Args:
        app: The Celery app whose queues they are.
        must_stop: Tells that there is no more listening to be done.
    """

    def __init__(self, app: Celery, queues: Sequence[str], must_stop: Callable[[], bool]) -> None:
        self._app = app
        self._queues = list(queues)
        self._must_stop = must_stop
        self._kombu: Any = None
        self._connection: Any = None
        self._keys: dict[str, list[str]] = {}

    def next(self) -> tuple[str, UUID] | None:
        """Wait for a hint; returns its queue and the step it names.

        Returns:
            None when the caller has to go back to Celery: it was told so, Redis does not answer, or there is a
            message that is none of ours.
        """
        try:
            if self._connection is None:
                self._connect()
            while not self._must_stop():
                if (answer := self._ask()) is not None:
                    return self._taken(*answer)
        except (RedisError, OSError, KombuError) as error:
            log.info("listening_ended", error=f"{type(error).__name__}: {error}")
        self.close()
        return None

    def _connect(self) -> None:
        self._kombu = self._app.connection_for_read()
        channel = self._kombu.channel()
        if not isinstance(channel, transport.Channel):
            raise TypeError(f"{type(channel).__name__} is not Redis")
        self._keys = {queue: channel.keys_of(queue) for queue in self._queues}
        self._connection = channel.pool.get_connection()

    def _ask(self) -> tuple[bytes, bytes] | None:
        """Ask for one message; None if there was none for a while."""
        keys = [key for queue in self._queues for key in self._keys[queue]]
        self._connection.send_command("BRPOP", *keys, LISTEN_SECONDS)
        answer: tuple[bytes, bytes] | None = self._connection.read_response()
        return answer

    def _taken(self, key: bytes, message: bytes) -> tuple[str, UUID] | None:
        """Read a message that was taken off a list; one that is not for this process goes back to where it was."""
        queue = next(queue for queue, keys in self._keys.items() if key.decode() in keys)
        # Whoever was served goes to the end, so that a queue that is never empty does not hold up the others.
        self._queues.remove(queue)
        self._queues.append(queue)
        try:
            step_id = unpacked(message)
        except NoHint:
            step_id = None
        if step_id is None or self._must_stop():
            self._connection.send_command("RPUSH", key, message)
            self._connection.read_response()
            return None
        return queue, step_id

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
        if self._kombu is not None:
            self._kombu.release()
            self._kombu = None
