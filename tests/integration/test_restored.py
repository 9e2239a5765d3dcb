"""A database that was restored or copied becomes an installation of its own."""

from datetime import timedelta
from uuid import uuid4

import pytest

from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError
from orchestrator.exchange import NewInstance
from orchestrator.store import claiming, installation, workers
from orchestrator.store.claiming import Worker
from orchestrator.store.instances import Profile
from orchestrator.store.session import Store
from tests.support.stack import NAMESPACE, TENANT, define

SILENT = timedelta(seconds=12)


def _start(engine: Engine, store: Store) -> None:
    sequence_id = define(store, [{"type": "step", "id": "a", "handler": "known"}], f"s{uuid4()}")
    new = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE, profile=Profile(data={}))
    engine.start_many([new])


def test_hints_and_claims_of_the_former_time_are_left_behind(engine: Engine, store: Store) -> None:
    _start(engine, store)
    with store.transaction() as tx:
        before = installation.identity(tx)
        installation.write(tx, "broker_epoch", "mark")
        installation.write(tx, "service_heartbeat", "2020-01-01T00:00:00+00:00")
        tx.execute("UPDATE steps SET hinted_at = clock_timestamp(), hints = 3, claim_epoch = 7")
    with store.transaction() as tx:
        after = installation.begin_anew(tx, SILENT)
        assert after != before
        assert after == installation.identity(tx)
        assert installation.read(tx, "broker_epoch") is None
        assert tx.query("SELECT hinted_at, hints FROM steps") == [(None, 0)]
        [(_, step)] = claiming.claim_ready(tx, "default", ["known"], Worker(id=uuid4(), name="w", slot=1)).steps
        assert step.claim_epoch == 7 + installation.EPOCHS_AHEAD + 1


def test_an_installation_that_runs_is_left_alone(store: Store) -> None:
    with store.transaction() as tx:
        before = installation.identity(tx)
        workers.register(tx, uuid4(), name="w", kind="celery", queues=["default"], handlers=[], slots=1)
    with pytest.raises(ConfigurationError, match="end them first"), store.transaction() as tx:
        installation.begin_anew(tx, SILENT)
    with store.transaction() as tx:
        tx.execute("DELETE FROM workers")
        installation.write(tx, "service_heartbeat", tx.now().isoformat())
    with pytest.raises(ConfigurationError, match="service loops"), store.transaction() as tx:
        installation.begin_anew(tx, SILENT)
    with store.transaction() as tx:
        assert installation.identity(tx) == before
