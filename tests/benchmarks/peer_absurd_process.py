"""One Absurd worker process: the same works as Absurd tasks. Started by `peer_absurd.py` in an environment of its own.

Steps do nothing. Those of a task run in a row over a connection; Absurd has no parallel steps, so the fan-out awaits
its steps together in a coroutine, which spares it 500 tasks.
"""

import asyncio
import os
import signal
import sys
import threading
import time

QUEUES = {"steps": "steps", "fan_out": "fans"}
"""The queue of each task."""

THREADS = 4
"""Workers in a process, each with a connection of its own. Several tasks over one connection would wait for it."""

POLLING_SECONDS = 0.01
"""How often an idle worker looks for tasks; Absurd waits 0.25 s by default, which would be all one sees."""

AT_ONCE = 8
"""Tasks claimed by one call."""


def steps(length, ctx):
    """Run steps one after the other."""
    ended = []
    for _ in range(length):
        ctx.step("noop", lambda: None)
        ended.append(time.time())
    return ended


async def nothing():
    """Do nothing, and have it recorded."""


async def fan_out(width, ctx):
    """Run steps at the same time and join them."""
    await asyncio.gather(*(ctx.step("noop", nothing) for _ in range(width)))


def serve_steps(url, name):
    """Run tasks of steps for ever, over a connection of its own."""
    from absurd_sdk import Absurd

    worker = Absurd(url, queue_name=QUEUES["steps"])
    worker.register_task("steps")(steps)
    worker.start_worker(worker_id=name, batch_size=AT_ONCE, poll_interval=POLLING_SECONDS)


def serve_fans(url, name):
    """Run fan-outs for ever."""
    from absurd_sdk import AsyncAbsurd

    async def serve():
        worker = AsyncAbsurd(url, queue_name=QUEUES["fan_out"])
        worker.register_task("fan_out")(fan_out)
        await worker.start_worker(worker_id=name, poll_interval=POLLING_SECONDS)

    asyncio.run(serve())


def main(name):
    """Run tasks until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    url = os.environ["PEER_DATABASE_URL"]
    workers = [(serve_steps, f"{name}-{number}") for number in range(THREADS)] + [(serve_fans, f"{name}-fans")]
    for serve, worker in workers:
        threading.Thread(target=serve, args=(url, worker), daemon=True).start()
    stopping.wait()


if __name__ == "__main__":
    main(sys.argv[1])
