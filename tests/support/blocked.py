"""Waits until another thread stands at a lock of PostgreSQL."""

import time
from concurrent.futures import Future
from typing import Any

from orchestrator.store.session import Store

LONG = 30.0


def wait_until_blocked(store: Store, future: Future[Any]) -> None:
    """Wait until the other thread stands at a lock, or has ended without coming to one."""
    until = time.monotonic() + LONG
    while time.monotonic() < until and not future.done():
        with store.transaction() as tx:
            if tx.query(
                "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted "
                "AND a.datname = current_database()"
            ):
                return
        time.sleep(0.01)
    assert future.done(), "the other transaction neither ends nor waits"
