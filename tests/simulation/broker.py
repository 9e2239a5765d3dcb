"""The broker: lists of hints by queue, which may lose, repeat, delay and reorder them, and forget all of them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from redis.exceptions import ConnectionError as RedisAway

from queues.broker import Hint
from tests.simulation.chaos import Chaos
from tests.simulation.scheduler import Scheduler, Task

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Message:
    """A hint, and when it may be taken."""

    hint: Hint
    at: float


class Broker:
    """What stands for Celery and Redis.

    Args:
        note: Writes a line of the history.
    """

    def __init__(self, chaos: Chaos, scheduler: Scheduler, note: Callable[[str], None]) -> None:
        self._chaos = chaos
        self._scheduler = scheduler
        self._note = note
        self._messages: dict[str, list[Message]] = {}
        self._listening: list[Task] = []
        self._epoch: str | None = None
        self._epochs = 0
        self.away_until = 0.0

    # -- for those who ring ----------------------------------------------------------------------------------------

    def ring(self, hints: Sequence[Hint]) -> None:
        """Send hints, as far as the broker does."""
        for hint in hints:
            self._send(hint)

    def _send(self, hint: Hint) -> None:
        chaos, now = self._chaos, self._scheduler.now
        if self.is_away() or chaos.happens("hint_lost"):
            return
        late = chaos.between(0.1, 25) if chaos.happens("hint_late") else chaos.between(0, 0.01)
        times = 1 + chaos.happens("hint_twice") + chaos.happens("hint_twice")
        queue = self._messages.setdefault(hint.queue, [])
        queue += [Message(hint, now + late + number * chaos.between(0, 9)) for number in range(times)]
        for task in self._listening:
            task.wake_at = min(task.wake_at, now + late)

    # -- for workers -----------------------------------------------------------------------------------------------

    def take(self, queues: Collection[str]) -> Hint:
        """Wait for a hint on some queues."""
        scheduler = self._scheduler
        task = scheduler.current
        assert task is not None
        while True:
            now = scheduler.now
            known = [(queue, message) for queue in queues for message in self._messages.get(queue, ())]
            ripe = [(queue, message) for queue, message in known if message.at <= now]
            if ripe:
                queue, message = ripe[int(self._chaos.random.random() * len(ripe))]
                self._messages[queue].remove(message)
                return message.hint
            self._listening.append(task)
            try:
                scheduler.wait_until(min((message.at for _, message in known), default=FOREVER))
            finally:
                self._listening.remove(task)

    def waiting(self) -> int:
        """Count the hints that are out."""
        return sum(map(len, self._messages.values()))

    # -- the mark (`queues.connection.Mark`) -----------------------------------------------------------------------

    def read(self) -> str | None:
        """Read the mark."""
        self._strike()
        return self._epoch

    def renew(self) -> str:
        """Set the mark unless another process has."""
        self._strike()
        if self._epoch is None:
            self._epochs += 1
            self._epoch = f"epoch-{self._epochs}"
        return self._epoch

    def is_away(self) -> bool:
        """Tell whether it does not answer."""
        return self.away_until > self._scheduler.now

    def _strike(self) -> None:
        if self._chaos.happens("broker_emptied"):
            self._messages.clear()
            self._epoch = None
        if self._chaos.happens("broker_away"):
            self.away_until = self._scheduler.now + self._chaos.between(0.5, 10)
        if self.is_away():
            raise RedisAway("the broker is away")
