"""Flower, as people use it: it lists our workers, and every step as a task of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from celery import Celery

from orchestrator import embedded
from orchestrator.core.model import Claim, NodeKey
from orchestrator.core.outcomes import Completed
from orchestrator.doorbell import Doorbell
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance
from orchestrator.service import Service
from orchestrator.settings import Settings
from orchestrator.store import definitions, instances
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from queues.broker import Broker, celery_settings, client_app
from sequences.document import parse_definition, to_document
from workers.step_events import CLOSE_SECONDS, StepEvents

INSTANCES = 50
PATIENCE_SECONDS = 60.0
BLOCKS = [
    {"type": "step", "id": "begin", "handler": "noop"},
    {"type": "step", "id": "render", "handler": "transform", "queue_name": "gpu", "params": {"picture": 1}},
    {
        "type": "try_catch",
        "id": "guarded",
        "try_block": [
            {"type": "step", "id": "bad", "handler": "fail", "queue_name": "gpu", "params": {"message": "as told"}}
        ],
        "catch_block": [{"type": "step", "id": "note", "handler": "log", "params": {"message": "caught"}}],
    },
]


def _wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """Give the first true answer; errors of a server that is still starting count as none."""
    until = time.monotonic() + PATIENCE_SECONDS
    last: object = None
    while time.monotonic() < until:
        try:
            last = condition()
        except OSError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen; last seen: {last!r}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _celery(*arguments: str) -> list[str]:
    return ["-m", "celery", "-A", "workers", *arguments]


@pytest.fixture
def house(servers: embedded.Servers, database_url: str, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Service loops, one worker for each of two queues, and Flower, over a broker database of this test's own."""
    broker = servers.broker_url.rpartition("/")[0] + "/7"
    redis.Redis.from_url(broker).flushdb()  # other tests may have left hints there
    settings = Settings(database_url=database_url, redis_url=broker, broker_url=broker)
    store = PostgresStore(database_url, pool_size=5)
    doorbell = Doorbell(Broker(client_app(broker, store.installation())))
    port = _free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "REDIS_URL": broker,
        "BROKER_URL": broker,
        "FLOWER_UNAUTHENTICATED_API": "true",
    }

    def get(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
            return json.load(response)

    with ExitStack() as stack:
        for queue in ("default", "gpu"):
            node = ("worker", "-Q", queue, "-c", "1", "-n", f"{queue}@%h", "--without-gossip", "--without-mingle", "-E")
            stack.enter_context(_process(_celery(*node), environment, tmp_path / f"{queue}.log"))
        flower = ["-m", "celery", "-A", "workers", "flower", "--address=127.0.0.1", f"--port={port}"]
        stack.enter_context(_process(flower, environment, tmp_path / "flower.log"))
        service = Service(settings)
        service.start()
        stack.callback(store.close)
        stack.callback(doorbell.close)
        stack.callback(service.stop)
        yield SimpleNamespace(engine=Engine(store, doorbell, settings), store=store, get=get)


def _define(store: Store) -> UUID:
    given = {"id": str(uuid4()), "tenant_id": "t", "namespace": "d", "name": "shop", "version": 1, "blocks": BLOCKS}
    document = to_document(parse_definition({**given, "created_at": "2026-01-01T00:00:00Z"}))
    sequence_id = UUID(document["id"])
    with store.transaction() as tx:
        stored = definitions.StoredDefinition(
            id=sequence_id,
            tenant_id="t",
            namespace="d",
            name="shop",
            version=1,
            deprecated=False,
            document=document,
            content_hash="",
        )
        assert definitions.insert(tx, stored)
    return sequence_id


def _served(worker: dict[str, Any]) -> set[str]:
    return {queue["name"] for queue in worker.get("active_queues", [])}


@pytest.mark.timeout(300)
def test_flower_lists_the_workers_and_every_step(house: SimpleNamespace) -> None:
    def both_workers() -> dict[str, Any] | None:
        known = house.get("/api/workers?refresh=1")
        queues = {name.split("@")[0]: _served(worker) for name, worker in known.items()}
        return known if queues == {"default": {"default"}, "gpu": {"gpu"}} else None

    _wait_for("Flower knowing both workers and their queues", both_workers)

    request = NewInstance(sequence_id=_define(house.store), tenant_id="t", namespace="d")
    ids = [started.id for started in house.engine.start_many([request] * INSTANCES)]

    def all_completed() -> bool:
        with house.store.transaction() as tx:
            return set(instances.states_of(tx, ids).values()) == {"completed"}

    _wait_for("the end of all instances", all_completed)

    def all_seen() -> dict[str, Any] | None:
        tasks: dict[str, Any] = house.get("/api/tasks?limit=1000")
        ended = [task for task in tasks.values() if task["state"] in {"SUCCESS", "FAILURE"}]
        return tasks if len(ended) == 4 * INSTANCES else None

    tasks = _wait_for("Flower knowing every step", all_seen)
    seen = Counter(
        (task["name"], task["state"], task["routing_key"], task["worker"].split("@")[0]) for task in tasks.values()
    )
    assert seen == {
        ("step.noop", "SUCCESS", "default", "default"): INSTANCES,
        ("step.transform", "SUCCESS", "gpu", "gpu"): INSTANCES,
        ("step.fail", "FAILURE", "gpu", "gpu"): INSTANCES,
        ("step.log", "SUCCESS", "default", "default"): INSTANCES,
    }
    assert {task["root_id"] for task in tasks.values()} == {str(one) for one in ids}
    for task in tasks.values():
        assert task["sent"] <= task["received"] <= task["started"] <= task["timestamp"]
        assert task["state"] == "FAILURE" or task["runtime"] >= 0
        assert task["exception"] == ("as told" if task["state"] == "FAILURE" else None)


def _claim() -> Claim:
    return Claim(
        instance_id=uuid4(),
        step_id=uuid4(),
        key=NodeKey("begin"),
        token=uuid4(),
        attempt=0,
        handler="noop",
        queue="default",
        claimed_at=datetime.now(UTC),
        expires_at=None,
    )


def _run(events: StepEvents, claim: Claim) -> None:
    events.started(claim)
    events.ended(claim, Completed(output={}))


def test_events_that_nobody_listens_to_are_not_written(servers: embedded.Servers) -> None:
    broker = servers.broker_url.rpartition("/")[0] + "/8"
    app = client_app(broker)
    events = StepEvents(app, "default@here", is_enabled=True)
    client = redis.Redis.from_url(broker)
    steps = [_claim() for _ in range(5)]

    def told() -> list[str]:
        """Give the ids of the attempts that are told of, in the order in which their beginnings are."""
        with client.monitor() as monitor:
            for claim in steps:
                _run(events, claim)
            events.flush()
            client.publish("the-end", "")
            sent = takewhile(lambda seen: "the-end" not in seen["command"], monitor.listen())
            bodies = [
                json.loads(b64decode(json.loads(found[0])["body"]))
                for each in sent
                if (found := re.findall(r"\{.*\}", each["command"])) and "task.multi" in each["command"]
            ]
        return [event["uuid"] for body in bodies for event in body if event["type"] == "task-succeeded"]

    events._stopping.set()  # this test flushes by itself
    assert told() == []
    with client.pubsub() as flower:
        flower.psubscribe("/8.celeryev/*")
        assert _wait_for("the subscription", flower.get_message)
        assert told() == [str(claim.step_id) for claim in steps]
    events.close()


def test_a_worker_can_stop_while_the_broker_is_away() -> None:
    app = Celery("watched", set_as_current=False)
    app.conf.update(celery_settings(f"redis://127.0.0.1:{_free_port()}/0"))
    events = StepEvents(app, "default@here", is_enabled=True)
    _run(events, _claim())
    began = time.monotonic()
    events.close()
    assert time.monotonic() - began < CLOSE_SECONDS + 30, "it would have tried for ever"


def test_the_pool_of_the_broker_has_room_for_flower() -> None:
    limit = celery_settings("redis://")["broker_pool_limit"]
    threads = min(32, (os.cpu_count() or 1) + 4)  # of Flower's executor; its event thread comes on top
    assert not limit or limit > threads + 1
