"""A worker that cannot work must not start: it would take hints out of the queue and answer none."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from orchestrator import embedded
from tests.support.stack import REPOSITORY
from workers import app


def worker(servers: embedded.Servers, database_url: str, *options: str, **env: str) -> tuple[int, str]:
    """Start a worker that is expected to end by itself; returns its status and what it wrote."""
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers", "worker", "-c", "1", "--without-mingle", *options],
        env={**os.environ, **servers.environment, "DATABASE_URL": database_url, **env},
        cwd=REPOSITORY,
        capture_output=True,
        timeout=200,
        check=False,
        text=True,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_worker_whose_handlers_cannot_be_imported_ends(servers: embedded.Servers, database_url: str) -> None:
    status, text = worker(servers, database_url, ORCHESTRATOR_IMPORT="tests.support.no_such_module")
    assert status != 0
    assert "cannot import the handler module 'tests.support.no_such_module'" in text


def test_a_worker_that_cannot_register_ends(servers: embedded.Servers) -> None:
    nowhere = embedded.with_database(servers.database_url, "no_such_database")
    status, text = worker(servers, nowhere)
    assert status != 0
    assert "worker_cannot_start" in text


def test_a_worker_without_a_database_url_ends(servers: embedded.Servers) -> None:
    status, text = worker(servers, "")
    assert status != 0
    assert "DATABASE_URL" in text


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_pools_that_psycopg2_blocks_are_refused(pool: str) -> None:
    sender = SimpleNamespace(pool_cls=type("TaskPool", (), {"__module__": f"celery.concurrency.{pool}"}))
    with pytest.raises(SystemExit):
        app._choose_identity(sender)
