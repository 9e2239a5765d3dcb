"""The examination of RabbitMQ: whether it answers, takes messages, and has the queues that workers need."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from orchestrator.findings import Finding, error
from queues.rabbitmq import Trouble, troubles_of

REMEDIES: Final[Mapping[Trouble, str]] = {
    Trouble.UNREACHABLE: "start RabbitMQ, or correct BROKER_URL; the user needs all rights in the virtual host",
    Trouble.BLOCKED: "see `rabbitmq-diagnostics alarms`; give it memory or space on its disk",
    Trouble.QUEUE_TYPE: "delete the queue while its workers are stopped; hints in it are sent again",
}


def examine(url: str, queues: Collection[str]) -> Iterator[Finding]:
    """Look at everything.

    Args:
        queues: That workers serve.
    """
    for trouble, what in troubles_of(url, queues):
        yield error(f"rabbitmq_{trouble}", what, REMEDIES[trouble])
