"""RabbitMQ as the broker: quorum queues, and waits that end.

py-amqp waits for answers as long as the connection stands. Behind a network that swallows packets that is for ever: a
worker would hang while it reconnects, a dispatcher while it declares a queue. Here an answer that does not come in
time ends the connection.

Publications are confirmed together: all are sent, then all confirmations are awaited. One by one, each costs a round
trip and a write to the disks of the cluster. RabbitMQ confirms what it has dropped, too: a message whose queue somebody
has deleted is therefore asked to be returned.
"""

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any, Final

import kombu
import structlog
from amqp.exceptions import AMQPError, RecoverableConnectionError
from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from queues.addresses import RABBITMQ

log = structlog.get_logger()

QUORUM: Final = {"x-queue-type": "quorum"}
ANSWER_SECONDS: Final = 4.0
"""Above what a cluster needs to write something down; connecting and one answer together stay below 10 s."""
HEARTBEAT_SECONDS: Final = 10
"""A worker notices a dead connection after two of them."""
PROBE: Final = "orchestrator.probe"


class Trouble(StrEnum):
    """What can keep hints from their queues."""

    UNREACHABLE = "unreachable"
    BLOCKED = "blocked"
    """It takes no messages: memory or disk is short."""
    QUEUE_TYPE = "queue_type"
    """A queue is no quorum queue."""


class QueueGoneError(RecoverableConnectionError):
    """RabbitMQ returned messages: their queues are not there any more."""


class Channel(pyamqp.Channel):
    """A channel that keeps count: of what RabbitMQ has not confirmed yet, and of what it was given.

    `given` counts messages for each queue; `held` has the queue of each that is not answered, by its tag.
    """

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._published = 0
        self._is_confirming = False
        self.unconfirmed: set[int] = set()
        self.refused = 0
        self.returned: set[str] = set()
        self.given: Counter[str] = Counter()
        self.held: dict[int, str] = {}

    def basic_publish(self, *positional: Any, **named: Any) -> Any:
        """Publish one message; in time, or the connection is not used any more."""
        named["timeout"] = named.get("timeout") or ANSWER_SECONDS
        named["mandatory"] = self._is_confirming
        sent = super().basic_publish(*positional, **named)
        if self._is_confirming:
            self._published += 1
            self.unconfirmed.add(self._published)
        return sent

    def basic_consume(self, queue: str = "", *positional: Any, **named: Any) -> Any:
        """Consume a queue that anybody may write to: what cannot be read is dropped.

        Celery would end the worker.
        """
        if callback := named.get("callback"):
            named["callback"] = partial(self._read, callback, queue, is_held=not named.get("no_ack"))
        return super().basic_consume(queue, *positional, **named)

    def _read(self, callback: Callable[[Any], None], queue: str, message: Any, *, is_held: bool) -> None:
        self.given[queue] += 1
        if is_held:
            self.held[message.delivery_tag] = queue
        try:
            callback(message)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("message_dropped", error=f"{type(error).__name__}: {error}")
            self.basic_reject(message.delivery_tag, requeue=False)

    def basic_ack(self, delivery_tag: int, *positional: Any, **named: Any) -> Any:
        """Acknowledge one message."""
        self.held.pop(delivery_tag, None)
        return super().basic_ack(delivery_tag, *positional, **named)

    def basic_reject(self, delivery_tag: int, *positional: Any, **named: Any) -> Any:
        """Reject one message."""
        self.held.pop(delivery_tag, None)
        return super().basic_reject(delivery_tag, *positional, **named)

    def begin_confirming(self) -> None:
        """Have RabbitMQ confirm what is published from now on."""
        if not self._is_confirming:
            self.events["basic_ack"].add(self._settle)  # type: ignore[attr-defined]  # not in its types
            self.events["basic_nack"].add(self._refuse)  # type: ignore[attr-defined]  # not in its types
            self.events["basic_return"].add(self._take_back)  # type: ignore[attr-defined]  # not in its types
            self.confirm_select()
            self._is_confirming = True

    def _settle(self, delivery_tag: int, multiple: bool) -> None:
        if multiple:
            self.unconfirmed = {tag for tag in self.unconfirmed if tag > delivery_tag}
        else:
            self.unconfirmed.discard(delivery_tag)

    def _refuse(self, delivery_tag: int, multiple: bool) -> None:
        before = len(self.unconfirmed)
        self._settle(delivery_tag, multiple)
        self.refused += before - len(self.unconfirmed)

    def _take_back(self, _why: Exception, _exchange: str, routing_key: str, _message: object) -> None:
        self.returned.add(routing_key)


class Connection(pyamqp.Connection):
    """A connection that ends when an answer does not come."""

    Channel = Channel

    def drain_events(self, timeout: float | None = None) -> None:
        """Read what has come; what RabbitMQ has ended is told with a number.

        Celery drops errors without one that its first read finds: that a queue was deleted, or a channel closed. The
        worker would then consume nothing, for ever.
        """
        try:
            super().drain_events(timeout)
        except AMQPError as error:
            error.errno = errno.ECONNABORTED  # type: ignore[attr-defined]  # as errors of the system have it
            raise

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read one frame; waits that have no end of their own are waits for an answer."""
        if timeout is not None:
            return super().blocking_read(timeout)
        try:
            return super().blocking_read(ANSWER_SECONDS)
        except TimeoutError as error:
            self.collect()
            raise RecoverableConnectionError(f"no answer within {ANSWER_SECONDS:g} s") from error


class Transport(pyamqp.Transport):
    """RabbitMQ, over connections that end when an answer does not come."""

    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):
    """The same through TLS."""

    Connection = Connection


def use() -> None:
    """Let every connection to RabbitMQ that kombu opens in this process be of this kind."""
    for scheme in RABBITMQ:
        made = SSLTransport if scheme == "amqps" else Transport
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{made.__name__}"


def settings() -> dict[str, Any]:
    """Give the settings of Celery that RabbitMQ needs beside those of every broker.

    A hint waits in its worker, unconfirmed, while all children are busy. RabbitMQ closes the channel of a consumer that
    lets it wait for longer than `consumer_timeout`, half an hour by default: the worker then connects again.
    """
    return {
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        "broker_channel_error_retry": True,
        "broker_heartbeat": HEARTBEAT_SECONDS,
        "broker_transport_options": {
            # Of those who publish; a worker's consumer connects again for ever.
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.1,
            "interval_max": 0.2,
            "socket_settings": {
                socket.TCP_USER_TIMEOUT: 15_000,
                socket.TCP_KEEPIDLE: 15,
                socket.TCP_KEEPINTVL: 5,
                socket.TCP_KEEPCNT: 3,
            },
        },
    }


def quorum_queue(name: str) -> Queue:
    """Describe a queue of hints, reached by its name through the anonymous exchange."""
    return Queue(name, Exchange(""), name, queue_arguments=QUORUM)


@contextmanager
def confirmed(channel: object) -> Iterator[None]:
    """Publish in a block; at its end RabbitMQ has all of it.

    Raises:
        QueueGoneError: Some of it had no queue; the rest is there.
        RecoverableConnectionError: It did not confirm everything in time, or refused something.
    """
    if not isinstance(channel, Channel):
        raise TypeError(f"expected a channel of {__name__}, found {channel!r}")
    channel.begin_confirming()
    channel.refused = 0
    channel.returned.clear()
    yield
    until = time.monotonic() + ANSWER_SECONDS
    while channel.unconfirmed:
        left = until - time.monotonic()
        if left <= 0:
            raise RecoverableConnectionError(f"{len(channel.unconfirmed)} messages were not confirmed in time")
        try:
            channel.connection.drain_events(timeout=left)
        except TimeoutError:
            continue
    if channel.refused:
        raise RecoverableConnectionError(f"{channel.refused} messages were refused")
    if channel.returned:
        raise QueueGoneError(f"no queue {', '.join(sorted(channel.returned))}")


def answers(url: str) -> bool:
    """Tell whether RabbitMQ takes a connection."""
    use()
    try:
        with kombu.Connection(url, connect_timeout=2) as connection:
            connection.connect()
    except (OSError, AMQPError):
        return False
    return True


def troubles_of(url: str, queues: Collection[str]) -> Iterator[tuple[Trouble, str]]:
    """Look for what keeps hints from their queues; each with a sentence about it.

    Args:
        queues: That workers serve.
    """
    use()
    try:
        with kombu.Connection(url, connect_timeout=2) as connection:
            connection.connect()
            yield from _other_queues(connection, queues)
            yield from _refusals(connection)
    except (OSError, AMQPError) as problem:
        yield Trouble.UNREACHABLE, f"RabbitMQ does not answer: {problem}"


def _other_queues(connection: kombu.Connection, queues: Collection[str]) -> Iterator[tuple[Trouble, str]]:
    for name in queues:
        with connection.channel() as channel:
            try:
                quorum_queue(name)(channel).queue_declare(channel=channel)
            except connection.channel_errors as problem:
                yield Trouble.QUEUE_TYPE, f"queue {name!r} is not what workers need: {problem}"


def _refusals(connection: kombu.Connection) -> Iterator[tuple[Trouble, str]]:
    """Publish a message to a queue that goes with the connection: after an alarm, RabbitMQ does not read it."""
    with connection.channel() as channel:
        probe = Queue(f"{PROBE}.{id(channel)}", Exchange(""), exclusive=True, auto_delete=True, durable=False)
        probe(channel).declare()
        try:
            with confirmed(channel):
                connection.Producer(channel).publish({}, routing_key=probe.name, delivery_mode=1)
        except RecoverableConnectionError as problem:
            connection.collect()
            yield Trouble.BLOCKED, f"RabbitMQ takes no messages: {problem}"
