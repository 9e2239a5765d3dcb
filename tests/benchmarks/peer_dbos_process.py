"""One DBOS worker process: the same works as DBOS workflows. Started by `peer_dbos.py`, ended by SIGTERM.

Step functions and workflows do nothing but what the work asks for. The workflows of W2 and W4 return the moments at
which their steps had ended, because DBOS stores those in whole milliseconds.
"""

import asyncio
import os
import signal
import sys
import threading
import time

from dbos import DBOS, DBOSConfig

QUEUE = "bench"
APPLICATION_VERSION = "bench"
POLLING_SECONDS = 0.02
"""How often a process looks for enqueued workflows; DBOS waits a second by default, which would be all one sees."""
CONCURRENCY = 32
"""Workflows a process runs at once. Of no limit, 4, 8 and 32, tried once each, 32 gave most steps per second."""
THREADS = 64


@DBOS.step()
def noop() -> None:
    """Do nothing, and have it recorded."""


@DBOS.step()
async def noop_async() -> None:
    """Do nothing, and have it recorded."""


@DBOS.workflow(name="steps")
def steps(length: int) -> list[float]:
    """Run steps one after the other."""
    ended = []
    for _ in range(length):
        noop()
        ended.append(time.time())
    return ended


@DBOS.workflow(name="fan_out")
async def fan_out(width: int) -> None:
    """Run steps at the same time and join them."""
    await asyncio.gather(*(noop_async() for _ in range(width)))


def main(executor_id: str) -> None:
    """Run workflows until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    config = DBOSConfig(
        name="bench",
        system_database_url=os.environ["PEER_DATABASE_URL"],
        application_version=APPLICATION_VERSION,
        executor_id=executor_id,
        log_level="WARNING",
        enable_otlp=False,
        max_executor_threads=THREADS,
    )
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLLING_SECONDS)
    stopping.wait()
    DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1])
