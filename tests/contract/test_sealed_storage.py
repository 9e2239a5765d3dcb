"""What a dump of the database tells, with a key and without one, and how the key is changed (api §18.1, §19)."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from orchestrator.core.outcomes import Completed
from orchestrator.encryption import Unreadable, Vault
from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store import instances
from orchestrator.store.apart import Apart
from orchestrator.store.instances import Profile
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.sealed import PLAIN, SEALED, seal_everything
from orchestrator.store.tables import metadata
from tests.contract.client import TENANT, Api, step

pytestmark = pytest.mark.usefixtures("store")
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
MANY = 20
"""Secrets of each kind."""


@pytest.fixture
def key() -> bytes | None:
    return OLD


@pytest.fixture
def store(database_url: str, key: bytes | None) -> Iterator[PostgresStore]:
    opened = opened_with(database_url, key)
    yield opened
    opened.close()


def opened_with(url: str, key: bytes | None, *old: bytes) -> PostgresStore:
    vault = None if key is None else Vault(key, old)
    return PostgresStore(url, pool_size=10, overflow=10, apart=Apart(threshold=2000), vault=vault)


def dump(store: PostgresStore) -> str:
    """Every table as text, as `pg_dump` writes it."""
    with store.transaction() as tx:
        return "\n".join(
            row[0] for table in metadata.sorted_tables for row in tx.query(f"SELECT t::text FROM {table.name} t")
        )


def opened(store: PostgresStore) -> str:
    """Everything that is sealed, opened."""
    found: list[str] = []
    with store.transaction() as tx:
        for table, columns in SEALED.items():
            owner = metadata.tables[table].primary_key.columns[0].name
            names = ", ".join(f'"{column}"' for column in columns)
            for row in tx.query(f"SELECT {owner}, {names} FROM {table}"):
                values = [tx.unlocked(each, row[0]) for each in row[1:]]
                found += [str(tx.opened_text(each) if isinstance(each, str) else each) for each in values]
    return "\n".join(found)


class Planter:
    """Makes secrets, and remembers them."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def __call__(self, where: str) -> str:
        self.planted.append(f"planted-{where}-{uuid4().hex}")
        return self.planted[-1]

    def found_in(self, text: str) -> list[str]:
        return [secret for secret in self.planted if secret in text]


def plant(api: Api, secret: Planter) -> None:
    """Put secrets wherever a client can put values that are not names or metadata."""
    for number in range(MANY):
        context = {
            "data": {"deep": [secret("data")], "large": "x" * 3000 + secret("large")},
            "config": secret("config"),
        }
        params = {"literal": secret("params"), "key": "{{ data.deep }}"}
        instance = api.start(step("a", params=params), step("gate", wait_for_input={"prompt": "?"}), context=context)
        (task,) = api.poll()
        api.report(task, "complete", output={"token": secret("output")})
        saved = {"checkpoint_data": {"token": secret("checkpoint")}}
        assert api.http.post(f"/instances/{instance}/checkpoints", json=saved).status_code == 201
        failed = api.start(step("b"))
        (task,) = api.poll()
        api.report(task, "fail", message=secret("error"), details={"said": secret("details")})
        assert api.state(failed) == "failed"
        held = api.start(step("held"), step("gate", wait_for_input={"prompt": "?"}))
        api.signal(held, {"custom": "human_input:gate"}, {"value": "yes", "comment": secret("signal")})
        (task,) = api.poll()
        beat = {"checkpoint": {"at": secret("task")}, "checkpoint_seq": 0}
        assert api.report(task, "heartbeat", **beat).status_code == 200
        session = {"tenant_id": TENANT, "session_key": f"s{number}", "data": {"token": secret("session")}}
        assert api.http.post("/sessions", json=session).status_code == 201
        credential = {"id": f"c{number}", "name": "c", "kind": "oauth2", "value": secret("credential")}
        credential |= {"refresh_token": secret("refresh")}
        assert api.http.post("/credentials", json=credential).status_code == 201
        name = f"t{number}"
        api.sequence(step("a", "noop"), name=name)
        trigger = {"slug": name, "sequence_name": name, "tenant_id": TENANT, "secret": secret("trigger")}
        assert api.http.post("/triggers", json={**trigger, "config": {"x": secret("config")}}).status_code == 201


# -- what a dump tells -----------------------------------------------------------------------------------------------


def test_api_18_1_no_planted_secret_is_in_a_dump(api: Api, store: PostgresStore):
    secret = Planter()
    plant(api, secret)
    written = dump(store)
    assert len(secret.planted) >= 200
    assert secret.found_in(written) == []
    with store.transaction() as tx:
        values = tx.query("SELECT value, refresh_token FROM credentials")
        data = [row[0] for row in tx.query("SELECT context ->> 'data' FROM task_instances")]
        assert len(data) == tx.query("SELECT count(*) FROM contexts")[0][0]
    assert all(text.startswith("enc:v1:") for row in values for text in row)
    assert all(text.startswith("enc:v2:") for text in data)
    for credential in api.http.get("/credentials").json():
        assert "enc:" not in str(credential)


@pytest.mark.parametrize("key", [None])
def test_api_18_1_without_a_key_every_planted_secret_is_in_a_dump(api: Api, store: PostgresStore):
    secret = Planter()
    plant(api, secret)
    assert set(secret.planted) - set(secret.found_in(dump(store))) == set()


def test_every_column_of_json_is_sealed_or_says_why_not():
    named = {f"{table}.{column}" for table, columns in SEALED.items() for column in columns}
    json = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if str(column.type).startswith("JSON")
    }
    assert json == {name for name in named if name in json} | PLAIN.keys()
    assert named - json == {
        "triggers.secret",
        "triggers.previous_secret",
        "credentials.value",
        "credentials.refresh_token",
        "dispatch_configs.secret",
        "dispatch_configs.second_secret",
        "step_logs.message",
    }


# -- reading ---------------------------------------------------------------------------------------------------------


def test_api_18_1_data_of_another_instance_cannot_be_put_in_place(api: Api, store: PostgresStore):
    first, second = (api.start(step("a"), data={"n": number}) for number in range(2))
    with store.transaction() as tx:
        statement = (
            "UPDATE contexts SET data = (SELECT data FROM contexts WHERE instance_id = %s) WHERE instance_id = %s"
        )
        tx.execute(statement, (UUID(first), UUID(second)))
    assert api.instance(first)["context"]["data"] == {"n": 0}
    assert api.http.get(f"/instances/{second}").status_code == 500
    assert api.http.get("/instances").status_code == 500


def test_api_18_1_a_list_shows_what_is_sealed(api: Api):
    context = {"data": {"small": "s", "stored apart": "x" * 3000}, "config": {"k": "v"}}
    started = [api.start(step("a"), context=context), api.start(step("a"))]
    listed = {each["id"]: each for each in api.http.get("/instances").json()["items"]}
    assert listed == {each: api.instance(each) for each in started}
    assert {name: listed[started[0]]["context"][name] for name in context} == context


def test_api_18_1_plain_text_from_before_is_read(api: Api, database_url: str):
    plain = opened_with(database_url, None)
    engine = Engine(plain, lambda _hints: None, Settings())
    client = Api(api.http, engine)
    with plain.transaction() as tx:
        tx.execute("DELETE FROM installation")
    instance = client.start(step("a"), data={"n": 1})
    with plain.transaction() as tx:
        tx.execute("UPDATE contexts SET data = %s WHERE instance_id = %s", ('{"n": 2}', UUID(instance)))
    plain.close()
    assert api.instance(instance)["context"]["data"] == {"n": 2}


@pytest.mark.parametrize("key", [None, OLD])
@pytest.mark.parametrize(
    "value",
    ["enc:v1:abc", "enc:v2:abc", {"_sealed": "enc:v1:abc"}, {"_sealed": "enc:v2:abc", "a": 1}, ["enc:v1:"], None, 0],
)
def test_values_that_look_sealed_are_values(api: Api, value):
    context = {"data": {"v": value}, "config": value}
    instance = api.start(step("a", params={"v": "{{ data.v }}"}), context=context)
    task = api.complete(output=value)
    assert task["params"] == {"v": value}
    shown = api.instance(instance)["context"]
    assert (shown["data"]["v"], shown["config"]) == (value, value)
    assert api.outputs(instance)[0]["output"] == value


# -- keys ------------------------------------------------------------------------------------------------------------


def test_api_19_process_without_the_key_of_the_database_does_not_start(
    api: Api, store: PostgresStore, database_url: str
):
    api.start(step("a"), data={"n": 1})
    store.try_out()
    for key, old in ((None, ()), (NEW, ())):
        other = opened_with(database_url, key, *old)
        with pytest.raises(ConfigurationError, match="ORCH8_ENCRYPTION_KEY"):
            other.try_out()
        with pytest.raises(Unreadable), other.transaction() as tx:
            tx.query("SELECT config FROM contexts")
        other.close()
    known = opened_with(database_url, NEW, OLD)
    known.try_out()
    known.close()


def test_api_19_keys_are_64_hex_characters():
    with pytest.raises(ValueError, match="64 hex"):
        Settings(encryption_key="ab")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="OLD"):
        _ = Settings(old_encryption_key="ab" * 32).vault  # type: ignore[arg-type]
    settings = Settings(encryption_key="ab" * 32)  # type: ignore[arg-type]
    assert "abab" not in repr(settings)


def test_api_18_1_key_is_changed_under_load_and_nothing_is_lost(
    api: Api, store: PostgresStore, database_url: str, settings: Settings
):
    secret = Planter()
    plant(api, secret)
    both = opened_with(database_url, NEW, OLD)
    engine = Engine(both, lambda _hints: None, settings)
    worker = Api(api.http, engine)
    stop, started = threading.Event(), list[UUID]()
    sequence = api.sequence(step("a", "noop", params={"n": "{{ data.n }}"}), step("b", "noop"))

    def load() -> None:
        while not stop.is_set() or len(started) < 20:
            request = NewInstance(
                sequence_id=UUID(sequence),
                tenant_id=TENANT,
                namespace="default",
                profile=Profile(data={"n": len(started)}),
            )
            started.append(engine.start_many([request])[0].id)
            worker.run_builtins(noop=lambda params: Completed(output=params))

    loading = threading.Thread(target=load)
    loading.start()
    sealed = seal_everything(both, Vault(NEW, (OLD,)))
    stop.set()
    loading.join(60)
    sealed += seal_everything(both, Vault(NEW, (OLD,)))
    assert sealed > 200
    assert seal_everything(both, Vault(NEW, (OLD,))) == 0
    written = dump(both)
    assert Vault(OLD).key_id not in written
    assert set(re.findall(r"enc:v\d:(.{8})", written)) == {Vault(NEW).key_id}
    new_only = opened_with(database_url, NEW)
    whole = opened(new_only)
    assert secret.found_in(whole) == secret.planted
    assert all(f"'n': {number}" in whole for number in range(len(started)))
    with new_only.transaction() as tx:
        assert set(instances.states_of(tx, started).values()) == {"completed"}
    for store_opened in (both, new_only):
        store_opened.close()


def rotate(url: str, **keys: bytes) -> subprocess.CompletedProcess[str]:
    """Run `orchestrator rotate-encryption` in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if "ENCRYPTION_KEY" not in name}
    named = {f"ORCH8_{name.upper()}": key.hex() for name, key in keys.items()}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "rotate-encryption"],
        env={**environment, "DATABASE_URL": url, **named},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_api_18_1_command_seals_everything_with_the_new_key(api: Api, store: PostgresStore, database_url: str):
    secret = Planter()
    plant(api, secret)
    done = rotate(database_url, encryption_key=NEW, old_encryption_key=OLD)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"(\d+) rows were sealed; the old key is not needed any more\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) > MANY
    written = dump(store)
    assert set(re.findall(r"enc:v\d:(.{8})", written)) == {Vault(NEW).key_id}
    assert rotate(database_url, encryption_key=NEW).stdout.startswith("0 rows")
    new_only = opened_with(database_url, NEW)
    assert secret.found_in(opened(new_only)) == secret.planted
    new_only.close()


def test_api_19_command_without_the_right_keys_changes_nothing(api: Api, store: PostgresStore, database_url: str):
    plant(api, Planter())
    store.try_out()
    before = dump(store)
    for keys in ({}, {"old_encryption_key": OLD}, {"encryption_key": NEW}):
        refused = rotate(database_url, **keys)
        assert refused.returncode != 0
        assert "ENCRYPTION_KEY" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert dump(store) == before
