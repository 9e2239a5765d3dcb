"""Hints that leave at once: written by whoever has them, without waiting for the answer of Redis.

Handing a hint to a thread takes as long as Redis needs for it. Here it is written to a connection that is open already,
as far as the kernel takes it without a pause; what Redis has answered is read before the next one. So a connection that
was lost, or a Redis that refused, may cost the hint before, as any hint may be lost.
"""

import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from redis.exceptions import RedisError, ResponseError

from queues import transport
from queues.messages import Hint, packed

log = structlog.get_logger()

MOST_TOGETHER: Final = 16
"""Hints of one message; more may be too many for the kernel to take at once, and nobody waits for the first of them."""
MOST_UNANSWERED: Final = 1000
"""Hints that may be on their way; a Redis that does not answer so many is left to those who can wait for it."""


class Wire:
    """A connection for hints. Safe to use from several threads; made after the fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Any = None
        self._connection: Any = None
        self._socket: Any = None
        self._prefix = ""
        self._unanswered = 0
        self._rest = b""

    def open(self, channel: transport.Channel) -> None:
        """Open the connection unless it is; may take long.

        Not behind Sentinels, where the primary may become another one, and not with TLS, which cannot be written to and
        read from at any time.
        """
        if self._socket is not None or isinstance(channel, transport.SentinelChannel):
            return
        connection = channel.pool.get_connection()
        end = connection._get_socket()
        if end is None or isinstance(end, ssl.SSLSocket):
            channel.pool.release(connection)
            return
        end.settimeout(0)
        with self._lock:
            self._pool, self._connection, self._socket = channel.pool, connection, end
            self._prefix = channel.global_keyprefix
            self._unanswered, self._rest = 0, b""

    def send(self, hints: Sequence[Hint]) -> bool:
        """Write hints, if that can be done at once; a hint that was not written for sure may have been."""
        if len(hints) > MOST_TOGETHER or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._socket is not None and self._send(hints)
        except (RedisError, OSError) as error:
            log.info("hint_wire_lost", error=f"{type(error).__name__}: {error}")
            self._close()
            return False
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._close()

    def _send(self, hints: Sequence[Hint]) -> bool:
        self._read_answers()
        if self._unanswered + len(hints) > MOST_UNANSWERED:
            return False
        commands = [("LPUSH", f"{self._prefix}{hint.queue}", packed(hint)) for hint in hints]
        message = b"".join(self._connection.pack_commands(commands))
        if self._socket.send(message) < len(message):
            raise BlockingIOError("Redis does not read what it is sent")
        self._unanswered += len(hints)
        return True

    def _read_answers(self) -> None:
        with suppress(BlockingIOError):
            while read := self._socket.recv(65536):
                *answers, self._rest = (self._rest + read).split(b"\r\n")
                self._unanswered -= len(answers)
                for answer in answers:
                    if not answer.startswith(b":"):
                        raise ResponseError(answer.decode(errors="replace"))
            raise ConnectionResetError("Redis has closed the connection")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._pool.release(self._connection)  # it counts among those that the pool may open
            self._pool = self._connection = self._socket = None
