"""Health of a process that answers no HTTP: what the store has last heard of it. Exit status 0 is healthy.

    python healthcheck.py service          some process runs the background loops
    python healthcheck.py worker           the worker `worker@<this host>` has a fresh heartbeat

Without PostgreSQL neither can work, and both are unhealthy: fit for showing, not for killing them.
"""

import socket
import sys
from datetime import datetime, timedelta

from orchestrator.reconciler import HEARTBEAT_FACT
from orchestrator.settings import Settings
from orchestrator.store import installation, workers
from orchestrator.store.session import Store

FRESH = timedelta(seconds=15)
"""Seven heartbeats of a worker, thirty ticks of the reconciler."""


def is_healthy(kind: str, store: Store, host: str) -> bool:
    """Tell whether the process is heard of."""
    with store.transaction() as tx:
        if kind == "worker":
            return any(worker["name"] == f"worker@{host}" for worker in workers.alive(tx, FRESH))
        now, beat = tx.now(), installation.read(tx, HEARTBEAT_FACT)
    return beat is not None and now - datetime.fromisoformat(beat) < FRESH


if __name__ == "__main__":
    settings = Settings()
    store = Store(settings.database_url, pooler=settings.database_pooler)
    sys.exit(0 if is_healthy(sys.argv[1], store, socket.gethostname()) else 1)
