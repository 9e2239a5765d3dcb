"""What a client is told while something is down: 503, or a promise that holds; never a promise that is lost."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from uuid import UUID, uuid4

import orjson
import pytest

from orchestrator import embedded
from tests.faults.long import only_long
from tests.faults.stopped import standing_still
from tests.support.stack import NAMESPACE, TENANT, Stack
from tests.support.waiting import wait_until
from workers.supervisor import is_alive

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

ANSWER_SECONDS = 120.0
"""Far above what any wait of ours may take: an answer that has not come by then never comes."""
DOWN_SECONDS = float(os.environ.get("UPWARD_SECONDS", "1"))
"""How long each dependency stays down; five minutes in a long run."""


class Client:
    """Starts instances, and keeps what it was told."""

    def __init__(self, stack: Stack, sequence_id: UUID) -> None:
        self._stack = stack
        self._sequence_id = sequence_id
        self.accepted: list[UUID] = []
        self.refused: list[int] = []

    def ask_for(self, seconds: float) -> None:
        """Ask again and again for some time, at least twice."""
        until, asked = time.monotonic() + seconds, 0
        while asked < 2 or time.monotonic() < until:
            self.ask()
            asked += 1

    def ask(self) -> None:
        """Ask once."""
        body = {
            "sequence_id": str(self._sequence_id),
            "tenant_id": TENANT,
            "namespace": NAMESPACE,
            "idempotency_key": uuid4().hex,
        }
        request = urllib.request.Request(
            f"{self._stack.api_url}/instances", orjson.dumps(body), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
                self.accepted.append(UUID(orjson.loads(response.read())["id"]))
        except urllib.error.HTTPError as error:
            self.refused.append(error.code)


def _redis(stack: Stack) -> list[int]:
    found = embedded.status(stack.servers.directory, environment={})
    assert found is not None
    assert found.redis_pid is not None
    return [found.redis_pid]


def _postgres(stack: Stack) -> list[int]:
    """The server and all its sessions: a stopped postmaster alone only takes no new connections."""
    found = embedded.status(stack.servers.directory, environment={})
    assert found is not None
    assert found.postgres_pid is not None
    return [found.postgres_pid, *_descendants(found.postgres_pid)]


def _descendants(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:  # noqa: PTH123 - a pseudo file
        return [int(each) for each in children.read().split()]


def _workers(stack: Stack) -> list[int]:
    return [pid for name in stack.workers for pid in (stack.pid(name), *stack.children(name))]


def _service(stack: Stack) -> list[int]:
    return [stack.pid("service")]


@pytest.mark.parametrize(
    ("what", "is_needed"),
    [(_redis, False), (_workers, False), (_service, False), pytest.param(_postgres, True, marks=only_long)],
    ids=["Redis", "workers", "service", "PostgreSQL"],
)
def test_while_something_stands_still_nothing_accepted_is_lost(
    stack: Stack, what: Callable[[Stack], list[int]], is_needed: bool
) -> None:
    client = Client(stack, stack.define([{"type": "step", "id": "only", "handler": "effect"}]))
    client.ask()
    with standing_still(what(stack)):
        client.ask_for(DOWN_SECONDS)
    assert set(client.refused) <= {503}, client.refused
    assert bool(client.refused) is is_needed, f"{len(client.accepted)} accepted, {client.refused} refused"
    wait_until(lambda: _ask_once_more(client), "the API to accept again")
    states = stack.wait_for_end(client.accepted)
    assert set(states.values()) == {"completed"}


def _ask_once_more(client: Client) -> bool:
    known = len(client.accepted)
    client.ask()
    return len(client.accepted) > known


def test_while_postgres_is_down_clients_are_told_at_once(stack: Stack) -> None:
    client = Client(stack, stack.define([{"type": "step", "id": "only", "handler": "effect"}]))
    server = _postgres(stack)[0]
    os.kill(server, signal.SIGQUIT)
    try:
        wait_until(lambda: not is_alive(server), "PostgreSQL to be gone")
        began = time.monotonic()
        client.ask_for(DOWN_SECONDS)
        took = (time.monotonic() - began) / len(client.refused or [0])
    finally:
        embedded.start(stack.servers.directory, environment={})
        embedded.release(stack.servers.directory)
    assert not client.accepted
    assert set(client.refused) == {503}
    assert took < 10
    wait_until(lambda: _ask_once_more(client), "the API to accept again")
    assert set(stack.wait_for_end(client.accepted).values()) == {"completed"}


def test_control_a_client_that_is_promised_too_much_would_notice(stack: Stack) -> None:
    """An instance that was accepted and lost is found: the wait for its end does not come to an end."""
    client = Client(stack, stack.define([{"type": "step", "id": "only", "handler": "effect"}]))
    client.ask()
    stack.wait_for_end(client.accepted)
    client.accepted.append(uuid4())
    with pytest.raises(AssertionError, match="1 of 2 instances are not"):
        stack.wait_for_end(client.accepted, within=0.1)
