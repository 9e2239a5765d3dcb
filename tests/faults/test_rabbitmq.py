"""Links to RabbitMQ that do what networks do: whoever publishes is not held by them."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from amqp.exceptions import RecoverableConnectionError
from kombu import Connection

from queues import rabbitmq
from queues.broker import Broker, Hint, client_app
from tests.faults.long import only_long
from tests.support.proxy import Proxy, Trouble
from tests.support.rabbitmq import RabbitMQ, broking
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

LONGEST_PUBLISH = 10.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One RabbitMQ for all of these."""
    with broking(tmp_path_factory.mktemp("rabbitmq") / "node") as running:
        yield running


def _hints(*queues: str) -> tuple[Hint, ...]:
    return tuple(Hint(step_id=uuid4(), attempt=0, queue=queue, hint_id=uuid4()) for queue in queues)


def _count(broker: RabbitMQ, queue: str) -> int:
    with Connection(broker.url) as connection, connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


ONLY_SLOW = frozenset({Trouble.LATENCY, Trouble.LOSS})


@pytest.mark.parametrize("trouble", Trouble)
def test_a_troubled_link_holds_no_publication_for_long(broker: RabbitMQ, trouble: Trouble) -> None:
    link = Proxy(broker.port)
    bell = Broker(client_app(broker.url_through(link.port)))
    try:
        bell.publish(_hints("cut"))
        with link.troubled(trouble):
            for _ in range(2):
                began = time.monotonic()
                try:
                    bell.publish(_hints("cut", "cut"))
                except Exception:
                    assert trouble not in ONLY_SLOW
                else:
                    assert trouble in ONLY_SLOW
                assert time.monotonic() - began < LONGEST_PUBLISH
        before = _count(broker, "cut")
        bell.publish(_hints("cut"))
        wait_until(lambda: _count(broker, "cut") > before, "the hint to be counted")
    finally:
        bell.close()
        link.close()


@only_long
def test_control_without_a_bound_a_cut_link_holds_a_publication(
    broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "ANSWER_SECONDS", 3 * LONGEST_PUBLISH)
    link = Proxy(broker.port)
    bell = Broker(client_app(broker.url_through(link.port)))
    try:
        bell.publish(_hints("cut"))
        began = time.monotonic()
        link.begin(Trouble.BLACK_HOLE)
        with pytest.raises(RecoverableConnectionError):
            bell.publish(_hints("cut"))
        assert time.monotonic() - began > LONGEST_PUBLISH
    finally:
        link.close()
        bell.close()


@only_long
def test_the_doctor_names_a_rabbitmq_that_takes_no_messages(tmp_path: Path) -> None:
    with broking(tmp_path / "node", {"vm_memory_high_watermark": "{absolute,1000000}"}) as full:
        wait_until(
            lambda: set(dict(rabbitmq.troubles_of(full.url, []))) == {rabbitmq.Trouble.BLOCKED},
            "RabbitMQ to notice that its memory is full",
        )
        began = time.monotonic()
        bell = Broker(client_app(full.url))
        with pytest.raises(RecoverableConnectionError):
            bell.publish(_hints("one"))
        assert time.monotonic() - began < LONGEST_PUBLISH
        bell.close()
