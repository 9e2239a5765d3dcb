"""The acceptance behind PgBouncer in transaction mode: every process of ours reaches PostgreSQL through it alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.store.pool import UNKNOWN_SESSION, Pooler
from orchestrator.store.prepared import form
from orchestrator.store.session import Store
from tests.faults.test_faults import IN_FLIGHT, Journey
from tests.support.pgbouncer import PgBouncer, pooling
from tests.support.stack import REPOSITORY, Stack, WorkerSpec

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

SESSIONS = 3
"""Fewer than the processes have connections: their transactions take turns in them."""
CONSTANT = form("test_constant", ["int"], "SELECT $1")


@pytest.fixture
def pooler(installation: Stack, tmp_path: Path) -> Iterator[PgBouncer]:
    """A PgBouncer before the PostgreSQL of the installation."""
    with pooling(tmp_path / "pooler", str(installation.servers.database_tcp_url), sessions=SESSIONS) as running:
        yield running


@pytest.fixture
def forgetful(installation: Stack, tmp_path: Path) -> Iterator[PgBouncer]:
    """A PgBouncer that drops the options of its clients without a word, and has one session for all."""
    url = str(installation.servers.database_tcp_url)
    with pooling(tmp_path / "pooler", url, sessions=1, forgets_options=True) as running:
        yield running


def test_a_pooler_restarts_and_a_worker_is_killed(installation: Stack, pooler: PgBouncer, tmp_path: Path) -> None:
    workers = {"worker-1": WorkerSpec(), "worker-2": WorkerSpec()}
    with Stack.running(
        tmp_path / "stack",
        workers=workers,
        servers=installation.servers,
        reached=lambda url: {"DATABASE_URL": pooler.url_of(url), "DATABASE_POOLER": "transaction"},
    ) as stack:
        journey = Journey(stack, "behind a pooler")
        journey.start()
        journey.wait_for_part()
        with journey.hit(may_run_again=IN_FLIGHT):
            stack.kill("worker-1")
            pooler.kill()
            pooler.start()
        journey.judge()
        database = urlsplit(stack.servers.database_url).path[1:]
        assert pooler.log().count(f"login attempt: db={database}") >= len(stack.processes.names), "nobody came that way"


def test_a_session_that_changes_is_told_and_not_used(installation: Stack, forgetful: PgBouncer) -> None:
    """The control: with statements that the server keeps, the pooler of these tests does break transactions."""
    url = installation.servers.database_url
    with closing(Store(forgetful.url_of(url))) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.store.pool._check_options", lambda _connection: None)
        with store.transaction() as tx:
            assert tx.ask(CONSTANT, ["1"]) == [(1,)]
            session = tx.query("SELECT pg_backend_pid()")[0][0]
        with installation.store.transaction() as tx:
            assert tx.query("SELECT pg_terminate_backend(%s, 30000)", (session,)) == [(True,)]
        with pytest.raises(ConfigurationError, match="set DATABASE_POOLER=transaction"), store.transaction() as tx:
            tx.ask(CONSTANT, ["1"])


def test_whole_statements_outlive_the_session(installation: Stack, forgetful: PgBouncer) -> None:
    url = installation.servers.database_url
    with closing(Store(forgetful.url_of(url), pooler=Pooler.TRANSACTION)) as store:
        with store.transaction() as tx:
            assert tx.ask(CONSTANT, ["1"]) == [(1,)]
            session = tx.query("SELECT pg_backend_pid()")[0][0]
        with installation.store.transaction() as tx:
            assert tx.query("SELECT pg_terminate_backend(%s, 30000)", (session,)) == [(True,)]
        with store.transaction() as tx:
            assert tx.ask(CONSTANT, ["2"]) == [(2,)]


def test_limits_hold_for_the_transaction_and_no_longer(installation: Stack, forgetful: PgBouncer) -> None:
    """Another program that is given the same session finds it as the server makes it."""
    read = "SELECT name, source FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout') ORDER BY name"
    url = forgetful.url_of(installation.servers.database_url)
    with closing(Store(url, pooler=Pooler.TRANSACTION)) as store, store.transaction() as tx:
        assert tx.query(read) == [("lock_timeout", "session"), ("statement_timeout", "session")]
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(read)
        assert "session" not in {source for _, source in cursor.fetchall()}


@pytest.mark.parametrize("command", [("service",), ("worker", "-c", "1"), ("api", "--port", "0", "--insecure")])
def test_a_start_behind_a_pooler_that_is_not_set_says_what_to_set(
    installation: Stack, pooler: PgBouncer, command: tuple[str, ...]
) -> None:
    _refuses_to_start(installation, pooler, command)


def test_a_start_behind_a_pooler_that_forgets_options_says_what_to_set(
    installation: Stack, forgetful: PgBouncer
) -> None:
    _refuses_to_start(installation, forgetful, ("service",))


def _refuses_to_start(installation: Stack, pooler: PgBouncer, command: tuple[str, ...]) -> None:
    servers = installation.servers
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *command],
        env={
            **os.environ,
            **servers.environment,
            "PYTHONPATH": str(REPOSITORY),
            "DATABASE_URL": pooler.url_of(servers.database_url),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode not in {0, None}
    assert UNKNOWN_SESSION in ended.stdout + ended.stderr
