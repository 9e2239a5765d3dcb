"""What a client was told to be accepted is there, whatever dies meanwhile; and no batch is there by half.

Clients post batches without a pause, each under names of its own. A batch whose answer was lost is sent again with its
idempotency keys, until it is answered: it is there once, as a whole.
"""

import random
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from urllib.request import Request, urlopen

import orjson
import pytest

from tests.faults.test_faults import SEED
from tests.support.drive import step
from tests.support.stack import NAMESPACE, TENANT, Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

SIZE = 100
CLIENTS = 3
ROUNDS = 4
AGAIN_SECONDS = 0.05


class Client(threading.Thread):
    """Creates batches until it is told to stop, and notes which were accepted."""

    def __init__(self, stack: Stack, sequence_id: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.accepted: list[str] = []
        self.lost = 0
        self.is_done = threading.Event()
        self._address = f"{stack.api_url}/instances/batch"
        self._sequence_id = sequence_id

    def run(self) -> None:
        number = 0
        while not self.is_done.is_set():
            number += 1
            batch = f"{self.name}-{number}"
            while not self._create(batch):
                self.lost += 1
                time.sleep(AGAIN_SECONDS)
            self.accepted.append(batch)

    def _create(self, batch: str) -> bool:
        entries = [
            {
                "sequence_id": self._sequence_id,
                "tenant_id": TENANT,
                "namespace": NAMESPACE,
                "metadata": {"batch": batch},
                "idempotency_key": f"{batch}-{number}",
            }
            for number in range(SIZE)
        ]
        body = orjson.dumps({"instances": entries})
        try:
            with urlopen(Request(self._address, body, {"Content-Type": "application/json"}), timeout=20) as answer:
                return bool(answer.status == 201)
        except (OSError, HTTPException):
            return False


def kill_api(stack: Stack) -> None:
    stack.kill("api")
    stack.start("api")


def restart_postgres(stack: Stack) -> None:
    stack.restart_postgres()
    stack.start_all()


@pytest.mark.parametrize("fault", [kill_api, restart_postgres])
def test_accepted_batches_are_there_as_a_whole(stack: Stack, fault: Callable[[Stack], None]) -> None:
    drawn = random.Random(f"{SEED}/{fault.__name__}")
    print(f"seed {SEED}")
    sequence_id = str(stack.define([step("a")]))
    clients = [Client(stack, sequence_id, f"{fault.__name__}-{number}") for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(ROUNDS):
        before = sum(len(client.accepted) for client in clients)
        wait_until(lambda before=before: sum(len(each.accepted) for each in clients) >= before + 2 * CLIENTS, "batches")  # type: ignore[misc]
        time.sleep(drawn.uniform(0, 0.1))
        fault(stack)
    for client in clients:
        client.is_done.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    accepted = {batch for client in clients for batch in client.accepted}
    found = stack.query(
        "SELECT c.metadata->>'batch', count(*), count(s.id) + count(*) FILTER (WHERE i.state = 'completed') "
        "FROM instances i JOIN contexts c ON c.instance_id = i.id LEFT JOIN steps s ON s.instance_id = i.id "
        "WHERE i.sequence_id = %s GROUP BY 1",
        (sequence_id,),
    )
    assert {row[0]: row[1:] for row in found} == dict.fromkeys(accepted, (SIZE, SIZE))
    assert sum(client.lost for client in clients) > 0, "no fault has hit a request"
    ids = [row[0] for row in stack.query("SELECT id FROM instances WHERE sequence_id = %s", (sequence_id,))]
    stack.wait_for_end(ids, 180)
