"""How a worker notices that RabbitMQ has stopped giving it messages, and gets them again.

RabbitMQ can lose a delivery inside itself: a quorum queue takes a message for given to a consumer whose channel has
never seen it (3.10 does, now and then, after it has closed a channel for a message that was left unanswered too long).
The queue waits for an answer that cannot come and gives that consumer nothing more, while its connection stands and
looks well. So the worker looks into its queues from time to time. Where messages are ready and it is given none,
although it holds none, it connects anew: all that was given to it is given again.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from amqp.exceptions import ChannelError, RecoverableConnectionError
from celery import bootsteps

from queues.rabbitmq import Channel

LOOK_SECONDS: Final = 5.0
"""A worker is starved that was given nothing from one look to the next."""


class Watch:
    """Looks after what a channel is given.

    Args:
        queues: Names those it consumes now.
    """

    def __init__(self, channel: Channel, queues: Callable[[], Iterable[str]]) -> None:
        self._channel = channel
        self._queues = queues
        self._idle: dict[str, int] = {}
        """Queues with messages that were not given to us at the last look; each with how many had been until then."""

    def look(self) -> None:
        """Look once.

        Raises:
            RecoverableConnectionError: Nothing comes from a queue that has something, or a queue is gone.
        """
        given = self._channel.given
        held = set(self._channel.held.values())
        idle = {name: given[name] for name in self._queues() if name not in held and self._ready(name)}
        starved = [name for name, count in idle.items() if self._idle.get(name) == count]
        self._idle = idle
        if starved:
            raise RecoverableConnectionError(f"RabbitMQ gives nothing from {', '.join(starved)}, where messages wait")

    def _ready(self, name: str) -> int:
        try:
            found: Any = self._channel.queue_declare(name, passive=True)
        except ChannelError as error:
            raise RecoverableConnectionError(f"queue {name} cannot be looked at: {error}") from error
        return int(found.message_count)


class LookForStarvation(bootsteps.StartStopStep):
    """Has a consumer of RabbitMQ's look while its event loop runs."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _entry: Any = None

    def start(self, consumer: Any) -> None:
        """Begin to look, on a connection that has just been made."""
        channel = consumer.task_consumer.channel
        if consumer.hub is not None and isinstance(channel, Channel):
            watch = Watch(channel, lambda: [queue.name for queue in consumer.task_consumer.queues])
            self._entry = consumer.timer.call_repeatedly(LOOK_SECONDS, watch.look)

    def stop(self, consumer: Any) -> None:
        """Look no more: the connection is gone, or is about to."""
        del consumer
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
