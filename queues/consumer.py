"""The consumer of a worker's hints, where it differs from Celery's."""

from typing import ClassVar

from celery.worker import consumer


class Consumer(consumer.Consumer):
    """A consumer that makes no queues for delayed messages.

    Celery makes 28 quorum queues as soon as it sees one, at every reconnection, for messages with a countdown or an
    eta; hints have neither.
    """

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc, valid-type]  # a variable in its types
        """All steps but that one."""

        default_steps: ClassVar[list[str]] = [
            step for step in consumer.Consumer.Blueprint.default_steps if "delayed_delivery" not in step
        ]
