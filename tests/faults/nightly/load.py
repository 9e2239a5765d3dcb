"""The clients: they start instances at a steady pace through the API, and repeat a request until it is answered."""

import itertools
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import orjson

from tests.faults.journey import ITEMS
from tests.support.stack import NAMESPACE, TENANT

TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS = 0.1
CLIENTS = 2
MOST_OPEN = 150
"""So many instances may be open: a machine that is busy with other things falls behind a load that does not look."""


class Load:
    """A steady load; every accepted id is kept, and so is every answer that was no acceptance.

    Args:
        sequence_id: What is started.
        per_second: Instances that all clients together start.
        urls: Of the APIs, asked in turn.
        count_open: Counts the instances that have not ended; None if the database does not answer.
    """

    def __init__(
        self, urls: Sequence[str], sequence_id: UUID, *, per_second: float, count_open: Callable[[], int | None]
    ) -> None:
        self._count_open = count_open
        self._urls = itertools.cycle(urls)
        self.sequence_id = sequence_id
        self._pause = CLIENTS / per_second
        self._run = uuid4().hex
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        self.accepted: list[UUID] = []
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    def going_on(self, urls: Sequence[str], count_open: Callable[[], int | None]) -> "Load":
        """Make clients of other addresses that start the same sequence at the same pace."""
        return Load(urls, self.sequence_id, per_second=CLIENTS / self._pause, count_open=count_open)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Start no more, and wait for the answers to what was asked."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(120)

    def since(self, number: int) -> Sequence[UUID]:
        """Give the ids of the instances accepted after the first `number` of them."""
        return tuple(self.accepted[number:])

    def _client(self) -> None:
        due = time.monotonic()
        while not self._is_over.is_set():
            if (self._count_open() or 0) < MOST_OPEN:
                self._start_one(f"{self._run}/{next(self._numbers)}")
            due = max(due + self._pause, time.monotonic() - 1)
            self._is_over.wait(max(0.0, due - time.monotonic()))

    def _start_one(self, key: str) -> None:
        body = {
            "sequence_id": str(self.sequence_id),
            "tenant_id": TENANT,
            "namespace": NAMESPACE,
            "context": {"data": {"items": list(ITEMS)}, "config": {}},
            "idempotency_key": key,
        }
        while (instance_id := self._ask(body)) is None:
            time.sleep(PAUSE_SECONDS)
        self.accepted.append(instance_id)

    def _ask(self, body: object) -> UUID | None:
        """Ask once; None if there was no answer or a refusal for now."""
        request = urllib.request.Request(
            f"{next(self._urls)}/instances", orjson.dumps(body), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                self.answers[str(response.status)] += 1
                return UUID(orjson.loads(response.read())["id"])
        except urllib.error.HTTPError as error:
            self.answers[str(error.code)] += 1
            if error.code != 503:
                self.wrong.append(f"the API answered {error.code}: {error.read()[:200]!r}")
        except (OSError, ValueError) as error:  # ValueError: an answer that was cut off
            self.answers[type(error).__name__] += 1
        except Exception as error:
            self.answers[type(error).__name__] += 1
        return None
