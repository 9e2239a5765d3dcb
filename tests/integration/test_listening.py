"""Children of a worker that take hints out of Redis by themselves, and leave to Celery what is Celery's."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from orchestrator import embedded
from queues.broker import Broker, Hint, client_app, key_prefix
from queues.listener import Listener
from tests.support.stack import Stack
from tests.support.waiting import wait_until
from workers import app
from workers.overtime import Flag
from workers.runtime import Identity, may_listen

INSTALLATION = "listening-test"


class House:
    """A listener on two queues, and who rings."""

    def __init__(self, servers: embedded.Servers) -> None:
        self.app = client_app(servers.broker_url, INSTALLATION)
        self.stop = Flag()
        self.listener = Listener(self.app, ["one", "two"], lambda: self.stop.is_up)
        self.redis = Redis.from_url(servers.broker_url)
        self._broker = Broker(self.app)

    def key(self, queue: str) -> str:
        return f"{key_prefix(INSTALLATION)}{queue}"

    def ring(self, *queues: str) -> list[Hint]:
        hints = [Hint(step_id=uuid4(), attempt=0, queue=queue, hint_id=uuid4()) for queue in queues]
        self._broker.publish(tuple(hints))
        return hints

    def close(self) -> None:
        self.listener.close()
        self.redis.delete(self.key("one"), self.key("two"))
        self.redis.close()
        self._broker.close()


@pytest.fixture
def house(servers: embedded.Servers) -> Iterator[House]:
    made = House(servers)
    yield made
    made.close()


def test_hints_are_taken_the_oldest_first_and_from_all_queues_in_turn(house: House) -> None:
    hints = house.ring("one", "one", "one", "two")
    taken = [house.listener.next() for _ in hints]
    assert taken == [(hint.queue, hint.step_id) for hint in (hints[0], hints[3], hints[1], hints[2])]


@pytest.mark.parametrize("message", [b'{"headers": {"task": "shop.charge"}}', b"no message"])
def test_a_message_that_is_no_hint_stays_first_in_its_queue(house: House, message: bytes) -> None:
    house.redis.rpush(house.key("one"), message)
    house.ring("one")
    assert house.listener.next() is None
    assert house.redis.lindex(house.key("one"), -1) == message
    assert house.redis.llen(house.key("one")) == 2


@pytest.mark.parametrize("is_rung", [True, False])
def test_a_listener_whose_worker_stops_ends_and_keeps_no_hint(house: House, is_rung: bool) -> None:
    heard: list[Any] = []
    thread = threading.Thread(target=lambda: heard.append(house.listener.next()), daemon=True)
    thread.start()
    wait_until(lambda: bool(_listening(house.redis)), "the listener to listen")
    house.stop.put_up()
    if is_rung:
        house.ring("one")
    thread.join(30)
    assert heard == [None]
    house.ring("one")
    assert house.listener.next() is None
    assert house.redis.llen(house.key("one")) == is_rung + 1


def test_a_listener_that_has_lost_redis_goes_back_to_celery_and_listens_again_later(house: House) -> None:
    heard: list[Any] = []
    thread = threading.Thread(target=lambda: heard.append(house.listener.next()), daemon=True)
    thread.start()
    wait_until(lambda: bool(_listening(house.redis)), "the listener to listen")
    for client in _listening(house.redis):
        house.redis.client_kill_filter(_id=client["id"])
    thread.join(30)
    assert heard == [None]
    [hint] = house.ring("two")
    assert house.listener.next() == ("two", hint.step_id)


def test_a_flag_is_seen_for_as_long_as_it_is_up(house: House) -> None:
    [hint] = house.ring("one")
    house.stop.put_up()
    assert house.listener.next() is None
    house.stop.take_down()
    assert house.listener.next() == ("one", hint.step_id)


@pytest.mark.parametrize(
    ("broker", "is_child", "listens", "expected"),
    [
        ("redis://cache", True, True, True),
        ("redis://cache", False, True, False),
        ("redis://cache", True, False, False),
        ("sentinel://cache#primary", True, True, True),
        ("unix:///cache.sock", True, True, False),
        ("amqp://broker", True, True, False),
    ],
)
def test_only_a_child_that_holds_up_nothing_listens(broker: str, is_child: bool, listens: bool, expected: bool) -> None:
    parent = 1 if is_child else os.getpid()
    identity = Identity(id=uuid4(), name="w", queues=("default",), pid=parent, listens=listens)
    assert may_listen(client_app(broker), identity) is expected


@pytest.mark.parametrize(
    ("options", "listens"), [({}, True), ({"time_limit": 60}, False), ({"autoscale": (3, 1)}, False)]
)
def test_children_that_celery_ends_or_counts_for_long_tasks_leave_hints_to_it(
    options: dict[str, Any], listens: bool
) -> None:
    limits = {"time_limit": None, "soft_time_limit": None, "autoscale": None}
    worker = SimpleNamespace(pool_cls=SimpleNamespace(), hostname="w@host", **limits | options)
    previous = app._Process.identity
    try:
        app._choose_identity(worker)
        assert app._Process.identity is not None
        assert app._Process.identity.listens is listens
    finally:
        app._Process.identity = previous


def _listening(redis: Redis) -> list[dict[str, Any]]:
    """List who waits for the queues of this test: nobody else's database of Redis is this one."""
    [own] = [client for client in redis.client_list() if client["id"] == str(redis.client_id())]
    return [client for client in redis.client_list() if client["cmd"] == "brpop" and client["db"] == own["db"]]


@pytest.fixture
def stack(servers: embedded.Servers, migrated_template: str, tmp_path: Path) -> Iterator[Stack]:
    with Stack.running(tmp_path / "stack", servers=servers, template=migrated_template) as running:
        yield running


def test_an_idle_child_is_rung_without_its_parent_and_other_tasks_still_reach_celery(stack: Stack) -> None:
    client = client_app(stack.servers.broker_url, stack.store.installation())
    sequence_id = stack.define([{"type": "step", "id": "a", "handler": "effect"}])

    def run(count: int) -> None:
        for _ in range(count):
            ids = stack.start_instances(sequence_id)
            assert set(stack.wait_for_end(ids).values()) == {"completed"}

    def tasks() -> dict[str, int]:
        """Count the messages that Celery has taken; empty while the worker has not answered."""
        answers = client.control.inspect(timeout=5, limit=1).stats() or {}
        return next((answer["total"] for answer in answers.values()), {})

    run(5)
    wait_until(lambda: tasks() == {"orchestrator.hint": 1}, lambda: f"one message for five hints, not {tasks()}")
    client.send_task("tests.add", (1, 2), queue="default", ignore_result=True)
    wait_until(lambda: tasks().get("tests.add") == 1, lambda: f"the task of somebody else to run: {tasks()}")
    run(3)
    assert tasks() == {"orchestrator.hint": 2, "tests.add": 1}
    client.control.add_consumer("late", reply=True)
    client.send_task("tests.add", (1, 2), queue="late", ignore_result=True)
    wait_until(lambda: tasks().get("tests.add") == 2, lambda: f"the queue that was added to be served: {tasks()}")
    run(2)
    # A step may be claimed by who has just ended another one; its hint comes after that.
    wait_until(
        lambda: tasks().get("orchestrator.hint", 0) > 3,
        lambda: f"both hints to be left to the parent, which has other queues than its children: {tasks()}",
    )
    client.close()
