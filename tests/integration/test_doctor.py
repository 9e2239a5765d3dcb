"""The doctor names each fault that is injected, and nothing in an installation that is well."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from redis import Redis

from orchestrator import embedded
from orchestrator.cli import main
from orchestrator.doctor import Severity, database, examine, explain, hints
from orchestrator.embedded import home
from orchestrator.engine import Engine
from orchestrator.errors import NotFound
from orchestrator.exchange import NewInstance
from orchestrator.reconciler import Reconciler
from orchestrator.settings import Settings
from orchestrator.store import workers
from orchestrator.store.instances import Profile
from orchestrator.store.row_security import RowSecurityMode
from orchestrator.store.session import Store
from sequences.signals import Control
from tests.support.stack import NAMESPACE, TENANT, define
from tests.support.waiting import wait_until

HOUR_AGO = "clock_timestamp() - interval '1 hour'"


def _names(settings: Settings) -> set[str]:
    return {each.name for each in examine(settings) if each.severity is not Severity.NOTE}


def _start(engine: Engine, store: Store, *blocks: dict[str, Any]) -> UUID:
    sequence = define(store, blocks, f"s{uuid4()}")
    new = NewInstance(sequence_id=sequence, tenant_id=TENANT, namespace=NAMESPACE, profile=Profile(data={}))
    return engine.start_many([new])[0].id


def _step(**fields: Any) -> dict[str, Any]:
    return {"type": "step", "id": "a", "handler": "known", **fields}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings by which the worker of these tests, who sends no heartbeats, does not count as dead."""
    return settings.model_copy(update={"dead_after": timedelta(minutes=10)})


@pytest.fixture(autouse=True)
def well(engine: Engine, store: Store, settings: Settings) -> None:
    """Loops have just ticked, and a worker serves `default`."""
    Reconciler(engine, settings).tick()
    with store.transaction() as tx:
        workers.register(tx, uuid4(), name="w", kind="celery", queues=["default"], handlers=["known"], slots=1)


@pytest.fixture
def redis(servers: embedded.Servers) -> Iterator[Redis]:
    """The Redis of all tests, with its settings as they were afterwards."""
    client = Redis.from_url(servers.redis_url)
    before = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "appendonly")}
    yield client
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


def _no_loops(_engine: Engine, _store: Store) -> str:
    return "UPDATE installation SET value = '2020-01-01T00:00:00+00:00' WHERE name = 'service_heartbeat'"


def _no_worker(engine: Engine, store: Store) -> str:
    _start(engine, store, _step(queue_name="gpu"))
    return f"UPDATE steps SET ready_at = {HOUR_AGO}"


def _unknown_handler(engine: Engine, store: Store) -> str:
    _start(engine, store, _step(handler="unheard"))
    return "UPDATE steps SET ready_at = clock_timestamp() - interval '1 minute'"


def _long_wait(engine: Engine, store: Store) -> str:
    _start(engine, store, _step())
    return f"UPDATE steps SET ready_at = {HOUR_AGO}"


def _lost_hints(engine: Engine, store: Store) -> str:
    _start(engine, store, _step())
    return "UPDATE steps SET hints = 7"


def _dead_worker(engine: Engine, store: Store) -> str:
    _start(engine, store, _step())
    return f"UPDATE steps SET state = 'claimed', worker_id = '{uuid4()}', worker_name = 'gone', claimed_at = {HOUR_AGO}"


def _late_timer(engine: Engine, store: Store) -> str:
    _start(engine, store, _step(delay={"duration": 3_600_000}))
    return f"UPDATE timers SET due_at = {HOUR_AGO}"


def _silent_worker(_engine: Engine, _store: Store) -> str:
    return f"UPDATE workers SET heartbeat_at = {HOUR_AGO}"


def _parked(engine: Engine, store: Store) -> str:
    _start(engine, store, _step())
    return "UPDATE instances SET state = 'paused', is_held = true, parked_reason = 'step a has lost 3 workers'"


def _late_letter(_engine: Engine, _store: Store) -> str:
    return (
        "INSERT INTO letters (recipient_id, id, sender_id, kind, body, due_at) SELECT gen_random_uuid(), "
        f"gen_random_uuid(), gen_random_uuid(), 'child', '{{}}', {HOUR_AGO}"
    )


def _webhooks(status: str, _engine: Engine, _store: Store) -> str:
    return (
        "INSERT INTO webhook_outbox (id, url, event_type, instance_id, payload, status, attempts, due_at, created_at) "
        f"SELECT gen_random_uuid(), 'https://example.com', 'x', gen_random_uuid(), '{{}}', '{status}', 1, "
        f"{HOUR_AGO}, {HOUR_AGO} FROM generate_series(1, 3)"
    )


def _no_partition(_engine: Engine, store: Store) -> str:
    with store.transaction() as tx:
        names = [
            row[0]
            for row in tx.query(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass"
            )
        ]
    return "; ".join(f"DROP TABLE {name}" for name in names if "default" not in name)


def _other_key(_engine: Engine, _store: Store) -> str:
    return "INSERT INTO installation VALUES ('encryption_key', 'another')"


def _emptied_redis(_engine: Engine, _store: Store) -> str:
    return "INSERT INTO installation VALUES ('id', 'this'), ('broker_epoch', 'a mark that Redis does not have')"


def _old_schema(_engine: Engine, _store: Store) -> str:
    return "UPDATE alembic_version SET version_num = '0001'"


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (_no_loops, "no_loops"),
        (_no_worker, "queue_without_worker"),
        (_unknown_handler, "unknown_handler"),
        (_long_wait, "deep_queue"),
        (_lost_hints, "lost_hints"),
        (_dead_worker, "stuck_claim"),
        (_late_timer, "late_timers"),
        (_old_schema, "schema"),
        (_silent_worker, "silent_worker"),
        (_parked, "parked"),
        (_late_letter, "late_letters"),
        (partial(_webhooks, "pending"), "late_webhooks"),
        (partial(_webhooks, "parked"), "parked_webhooks"),
        (_no_partition, "no_partition"),
        (_other_key, "encryption_key"),
        (_emptied_redis, "broker_mark"),
    ],
)
def test_the_doctor_names_what_is_wrong_with_the_work(
    fault: Callable[[Engine, Store], str], name: str, engine: Engine, store: Store, settings: Settings
) -> None:
    assert _names(settings) == set()
    statement = fault(engine, store)
    with store.transaction() as tx:
        tx.execute(statement)
    assert name in _names(settings)


@pytest.mark.parametrize(
    ("mode", "names"), [("auto", {"row_security"}), ("required", {"row_security"}), ("off", set())]
)
def test_the_doctor_names_a_role_that_is_missing(settings: Settings, mode: str, names: set[str]) -> None:
    lacking = {"tenant_role": "made_by_nobody", "row_security": RowSecurityMode(mode)}
    assert _names(settings.model_copy(update=lacking)) == names


def test_the_doctor_names_servers_that_do_not_answer(settings: Settings) -> None:
    nowhere = home.free_port()
    gone = settings.model_copy(update={"database_url": f"postgresql://127.0.0.1:{nowhere}/none"})
    assert _names(gone) == {"postgres_unreachable"}
    silent = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{nowhere}/0"})
    assert _names(silent) == {"redis_unreachable"}


def test_the_doctor_names_a_database_that_takes_no_writes(settings: Settings, store: Store) -> None:
    with store.transaction() as tx:
        name = tx.query("SELECT current_database()")[0][0]
        tx.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert "read_only" in _names(settings)


def test_the_doctor_names_a_transaction_that_stays_open(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LONG_TRANSACTION", timedelta(0))
    connection = psycopg2.connect(embedded.without_driver(settings.database_url))
    try:
        connection.cursor().execute("SELECT 1")
        assert "long_transaction" in _names(settings)
    finally:
        connection.close()


def test_the_doctor_names_a_table_that_is_locked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LONG_LOCK", timedelta(0))
    with closing(psycopg2.connect(embedded.without_driver(settings.database_url))) as connection:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE steps IN ACCESS EXCLUSIVE MODE")
        # What stands behind the lock cannot be read, and spoils nothing else.
        assert _names(settings) == {"table_locked", "not_seen"}
        [locked] = [each for each in examine(settings) if each.name == "table_locked"]
        assert "table steps" in locked.what
    assert _names(settings) == set()


def test_the_doctor_names_what_keeps_the_log(
    settings: Settings, servers: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SLOT_BYTES", -1)
    with closing(psycopg2.connect(embedded.without_driver(str(servers.admin_url)))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
            try:
                assert _names(settings) == {"idle_slot"}
            finally:
                cursor.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert _names(settings) == set()


def test_the_doctor_names_a_redis_that_takes_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Redis, "time", lambda _self: (0, 0))
        assert _names(settings) == {"redis_clock"}
    for about, name in (
        ({"role": "slave"}, "redis_read_only"),
        ({"role": "master", "aof_last_write_status": "err"}, "redis_disk"),
        ({"role": "master", "rdb_last_bgsave_status": "err"}, "redis_disk"),
    ):
        monkeypatch.setattr(Redis, "info", lambda _self, about=about: about)
        assert _names(settings) == {name}


def test_the_doctor_looks_at_an_api(settings: Settings) -> None:
    nowhere = f"http://127.0.0.1:{home.free_port()}"
    assert [each.name for each in examine(settings, nowhere) if each.severity is not Severity.NOTE] == [
        "api_unreachable"
    ]


def test_the_doctor_names_dead_rows(
    settings: Settings, engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "DEAD_ROWS", 5)
    with store.transaction() as tx:
        tx.execute("INSERT INTO counters SELECT n::text, n FROM generate_series(1, 20) AS n; DELETE FROM counters")
        tx.execute("SELECT pg_stat_force_next_flush()")
    wait_until(lambda: "dead_rows" in _names(settings), "dead rows to be seen")


def test_the_doctor_names_connections_that_run_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FULL", 0.0)
    assert "connections" in _names(settings)


def test_the_doctor_names_clocks_that_differ(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Late":
            return super().now(tz) - timedelta(minutes=1)

    monkeypatch.setattr(database, "datetime", Late)
    assert "clock" in _names(settings)


def test_the_doctor_names_what_is_wrong_with_redis(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.config_set("maxmemory", 64 * 2**30)
    redis.config_set("maxmemory-policy", "allkeys-lru")
    assert _names(settings) == {"eviction"}
    redis.config_set("maxmemory-policy", "noeviction")
    monkeypatch.setattr(hints, "FULL", 1e-9)
    assert "redis_full" in _names(settings)
    redis.config_set("appendonly", "no")
    assert "no_aof" in {each.name for each in examine(settings)}


def test_the_doctor_says_why_an_instance_stands_still(engine: Engine, store: Store, settings: Settings) -> None:
    gate = _start(engine, store, _step(handler="unheard"), {"type": "step", "id": "b", "handler": "known"})
    assert {each.name for each in explain(settings, gate)} == {"state", "unknown_handler"}
    queued = _start(engine, store, _step())
    assert {each.name for each in explain(settings, queued)} == {"state", "queued"}
    unserved = _start(engine, store, _step(queue_name="gpu"))
    assert {each.name for each in explain(settings, unserved)} == {"state", "queue_without_worker"}
    delayed = _start(engine, store, _step(delay={"duration": 3_600_000}))
    assert {each.name for each in explain(settings, delayed)} == {"state", "delayed"}
    engine.interventions.signal(queued, Control.PAUSE, None)
    assert "paused" in {each.name for each in explain(settings, queued)}
    with pytest.raises(NotFound):
        explain(settings, uuid4())


def test_the_command_answers_in_json_and_by_its_exit_code(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("ORCHESTRATOR_DEAD_AFTER", "10m")
    assert _code("doctor") == 0
    with store.transaction() as tx:
        tx.execute("DELETE FROM installation")
    capsys.readouterr()
    assert _code("doctor", "--output", "json") == 1
    assert [each["name"] for each in json.loads(capsys.readouterr().out) if each["severity"] == "error"] == ["no_loops"]
    assert _code("doctor", str(uuid4())) == 3


def _code(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["orchestrator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)
