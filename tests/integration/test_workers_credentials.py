"""Secrets in the hands of handlers: they get them, and what they say of a failure is cleared of them."""

import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from orchestrator.credential_use import CredentialUse
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance
from orchestrator.renewal import Renewer
from orchestrator.settings import Settings
from orchestrator.store import credentials, instances
from orchestrator.store.credentials import Credential, CredentialKind
from orchestrator.store.session import Store
from orchestrator.store.tables import metadata
from tests.support.hands import hands_of
from tests.support.stack import NAMESPACE, TENANT, define
from workers import PermanentError, StepContext
from workers.executor import Executor
from workers.registry import Registry

pytestmark = pytest.mark.shares_database

SECRET = 'p"a ss/wörd'


def boast(ctx: StepContext, key: str) -> None:
    ctx.log("calling with", key=key)
    raise PermanentError(f"bad key {key}", details={"sent": [f"Bearer {key}"], "raw": orjson.dumps(key).decode()})


async def boast_later(ctx: StepContext, key: str) -> None:
    raise ValueError(key)


def use(ctx: StepContext, key: str, count: int) -> dict[str, Any]:
    return {"length": len(key), "count": count}


def give_back(ctx: StepContext, key: str) -> dict[str, Any]:
    return {"key": key}


@pytest.fixture
def hands(engine: Engine, settings: Settings) -> Iterator[Executor]:
    registry = Registry()
    for handler in (boast, boast_later, use, give_back):
        registry.register(handler.__name__, handler)
    renewer = Renewer(engine.store, Egress(allow_internal=True))
    made = hands_of(engine, settings, registry, use=CredentialUse(engine.store, renewer))
    yield made
    made.close(30)


@pytest.fixture
def stored(engine: Engine, store: Store) -> None:
    now = engine.now()
    with store.transaction() as tx:
        for name, value in (("mail", SECRET), ("api", orjson.dumps({"key": SECRET, "count": 3}).decode())):
            made = Credential(
                id=name,
                tenant_id=TENANT,
                name=name,
                kind=CredentialKind.API_KEY,
                value=value,
                created_at=now,
                updated_at=now,
            )
            assert credentials.insert(tx, made)


def run(engine: Engine, store: Store, hands: Executor, handler: str, **params: Any) -> UUID:
    sequence = define(store, [{"type": "step", "id": "a", "handler": handler, "params": params}], f"s{uuid4().hex[:8]}")
    request = NewInstance(sequence_id=sequence, tenant_id=TENANT, namespace=NAMESPACE)
    (started,) = engine.start_many([request])
    hands.answer("default", None)
    hands._coroutines.close(30)
    return started.id


def rows(store: Store) -> str:
    """Everything that is stored, but the credentials themselves."""
    with store.transaction() as tx:
        return "\n".join(
            str(tx.query(f"SELECT t::text FROM {table.name} t"))
            for table in metadata.sorted_tables
            if table.name != "credentials"
        )


def output_of(store: Store, instance_id: UUID) -> Any:
    with store.transaction() as tx:
        return instances.outputs(tx, instance_id)[-1][2]


def test_s12_handler_gets_the_value_and_its_fields(engine: Engine, store: Store, hands: Executor, stored: None) -> None:
    params = {"key": "credentials://api/key", "count": "credentials://api/count"}
    assert output_of(store, run(engine, store, hands, "use", **params)) == {"length": len(SECRET), "count": 3}
    assert "wörd" not in rows(store)
    assert "credentials://api/key" in rows(store)


def test_s12_output_is_the_handlers_own_business(engine: Engine, store: Store, hands: Executor, stored: None) -> None:
    ran = run(engine, store, hands, "give_back", key="credentials://mail")
    assert output_of(store, ran) == {"key": SECRET}
    assert "wörd" in rows(store)


@pytest.mark.parametrize("handler", ["boast", "boast_later"])
def test_s12_failures_and_logs_are_cleared_of_the_secret(
    engine: Engine,
    store: Store,
    hands: Executor,
    stored: None,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    handler: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    run(engine, store, hands, handler, key="credentials://mail")
    written = rows(store)
    assert "[REDACTED]" in written
    said = capfd.readouterr()
    for text in (written, said.out, said.err, caplog.text):
        assert "wörd" not in text
        assert "w\\u00f6rd" not in text


def test_s12_unknown_credential_fails_the_step_before_it_runs(
    engine: Engine, store: Store, hands: Executor, stored: None
) -> None:
    run(engine, store, hands, "use", key="credentials://none", count=1)
    assert "is not known" in rows(store)
