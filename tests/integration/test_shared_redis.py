"""Two installations on one Redis: neither takes the hints of the other, nor notices when the other's keys go."""

from functools import partial
from pathlib import Path
from uuid import UUID

from redis import Redis

from orchestrator import embedded
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from queues.broker import celery_settings, key_prefix
from queues.connection import EpochMark, connect
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

BLOCKS = [{"type": "step", "id": name, "handler": "effect"} for name in ("a", "b")]


def test_the_id_of_an_installation_stays(store: Store, database_url: str) -> None:
    first = PostgresStore(database_url)
    again = PostgresStore(database_url)
    assert first.installation() == again.installation() == str(UUID(first.installation()))
    assert first.installation("name") == "name"
    first.close()
    again.close()


def test_queues_keep_their_names_and_keys_carry_the_installation() -> None:
    assert celery_settings("redis://h/0", "i")["broker_transport_options"]["global_keyprefix"] == "orchestrator:i:"
    assert "global_keyprefix" not in celery_settings("redis://h/0")["broker_transport_options"]
    assert "global_keyprefix" not in celery_settings("amqp://h//", "i")["broker_transport_options"]


def test_each_installation_has_a_mark_of_its_own(settings: Settings) -> None:
    redis = connect(settings.redis_url)
    one, other = EpochMark(redis, "one"), EpochMark(redis, "other")
    written = (one.renew(), other.renew())
    redis.delete(one.key)
    assert (one.read(), other.read()) == (None, written[1])


def test_two_installations_share_a_redis(servers: embedded.Servers, migrated_template: str, tmp_path: Path) -> None:
    broker = servers.broker_url.rpartition("/")[0] + "/1"
    redis = Redis.from_url(broker)
    redis.flushdb()
    workers = {"w": WorkerSpec(queues=("default", "gpu"))}
    running = partial(Stack.running, workers=workers, servers=servers, template=migrated_template, broker=broker)
    with (
        running(tmp_path / "one") as one,
        running(tmp_path / "two") as two,
    ):
        sequences = {stack: stack.define(BLOCKS) for stack in (one, two)}
        started = {stack: stack.start_instances(sequences[stack], 20) for stack in (one, two)}
        for stack, ids in started.items():
            assert set(stack.wait_for_end(ids).values()) == {"completed"}
        keys = [key.decode() for key in redis.keys("*")]
        names = {stack: key_prefix(stack.store.installation()) for stack in (one, two)}
        assert [key for key in keys if not key.startswith(tuple(names.values()))] == []
        _one_loses_its_keys(redis, one, two, names)
        redis.flushdb()
        for stack, sequence in sequences.items():
            assert set(stack.wait_for_end(stack.start_instances(sequence, 5)).values()) == {"completed"}
    redis.close()


def _one_loses_its_keys(redis: "Redis", one: Stack, two: Stack, names: dict[Stack, str]) -> None:
    marks = {stack: redis.get(f"{names[stack]}epoch") for stack in (one, two)}
    redis.delete(*redis.keys(f"{names[one]}*"))
    wait_until(lambda: redis.get(f"{names[one]}epoch") not in {None, marks[one]}, "a new mark")
    assert redis.get(f"{names[two]}epoch") == marks[two]
    wait_until(lambda: "broker_was_emptied" in one.log_tail(400), lambda: one.log_tail(400))
    assert "broker_was_emptied" not in two.log_tail(400)
