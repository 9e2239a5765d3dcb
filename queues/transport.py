"""The Redis transport, for queues that anybody may write to, and for a Redis that comes and goes.

kombu ends the whole worker when a message is no JSON, or lacks a member that it or Celery reads: one stray `LPUSH` for
each worker stops an installation. A hint may be lost at any time, so what cannot be read is dropped.

A message that could not be acknowledged keeps its place among those that a worker may fetch: one trouble with Redis for
each child, and the worker fetches nothing any more. A channel that could not be closed is closed once more, when its
connection has forgotten the address, which ends the worker. Neither is so here.
"""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from queues.messages import Hint, packed

log = structlog.get_logger()

SCHEMES: Final = ("redis", "rediss", "sentinel")


def serves(url: str) -> bool:
    """Tell whether the connections to a broker are of this kind."""
    return url.partition("://")[0] in SCHEMES


class QoS(redis.QoS):
    """The messages that a worker has fetched; those it is done with take no place, whatever Redis answers.

    Redis gives a message back to its queue after the visibility timeout: a late hint, which does no harm.
    """

    def ack(self, delivery_tag: str) -> None:
        """Note that a message was taken."""
        try:
            super().ack(delivery_tag)
        except (RedisError, OSError) as error:
            self._forget(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Note that a message was not taken, and is put back if that is wanted."""
        try:
            super().reject(delivery_tag, requeue)
        except (RedisError, OSError) as error:
            self._forget(delivery_tag, error)

    def _forget(self, delivery_tag: str, error: Exception) -> None:
        log.warning("message_not_acknowledged", error=f"{type(error).__name__}: {error}")
        virtual.QoS.ack(self, delivery_tag)


class Channel(redis.Channel):
    """A channel that outlives what it cannot read, and whom it cannot reach.

    Args:
        listeners: How many got the last message that went to all who listen (events; not tasks).
    """

    QoS = QoS
    listeners: int = 0

    def close(self) -> None:
        """Close for good, also when Redis does not answer; what was fetched is then not given back."""
        try:
            super().close()
        except (RedisError, OSError):
            self.do_restore = False
            super().close()  # it waits for no answer any more

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **options: Any) -> None:
        """Send a message to all who listen, and note how many these are."""
        if "_publish_batch" in options:  # kombu sends it later
            super()._put_fanout(exchange, message, routing_key, **options)  # type: ignore[misc]
            return
        with self.conn_or_acquire() as client:
            topics = self._get_publish_topics(exchange, routing_key)  # type: ignore[attr-defined]  # not in its types
            self.listeners = sum(client.publish(topic, dumps(message)) for topic in topics)

    def _brpop_read(self, **options: Any) -> Any:
        """Read one message and hand it on; one that cannot be read counts as read."""
        known = set(self.qos._delivered or ())
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("message_dropped", error=f"{type(error).__name__}: {error}")
            # One that was already noted as delivered would hold a place among those that may be fetched, for ever.
            for tag in set(self.qos._delivered or ()) - known:
                self.basic_reject(tag, requeue=False)
            return True

    def keys_of(self, queue: str) -> list[str]:
        """Give the lists in Redis that hold the messages of a queue, the most urgent ones first."""
        names = [self._q_for_pri(queue, priority) for priority in self.priority_steps]  # type: ignore[attr-defined]  # not in its types
        return [f"{self.global_keyprefix}{name}" for name in names]

    def put_hints(self, hints: Sequence[Hint]) -> None:
        """Put hints into their queues, all of them in one message; past the layers that a command goes through else."""
        connection = self.pool.get_connection()
        try:
            commands = [("LPUSH", f"{self.global_keyprefix}{hint.queue}", packed(hint)) for hint in hints]
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                connection.read_response()
        except BaseException:
            connection.disconnect()  # answers that were not read would be taken for those of the next command
            raise
        finally:
            self.pool.release(connection)


class Transport(redis.Transport):
    """Redis, with channels that outlive what they cannot read."""

    Channel = Channel


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same at the primary that Sentinels name."""


class SentinelTransport(redis.SentinelTransport):
    """Redis behind Sentinels, with channels that outlive what they cannot read."""

    Channel = SentinelChannel


def use() -> None:
    """Let every connection to Redis that kombu opens in this process be of this kind."""
    for scheme in SCHEMES:
        made = SentinelTransport if scheme == "sentinel" else Transport
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{made.__name__}"
