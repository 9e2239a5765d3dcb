"""One process with Restate handlers: the same works. Started by `peer_restate.py` in an environment of its own."""

import asyncio
import signal
import sys
import time

LOCAL = "127.0.0.1"


async def nothing():
    """Do nothing, and have it recorded."""


def application(name):
    """Make the service with its two handlers."""
    import restate

    service = restate.Service(name)

    @service.handler()
    async def steps(ctx: restate.Context, length: int) -> list[float]:
        ended = []
        for _ in range(length):
            await ctx.run_typed("noop", nothing)
            ended.append(time.time())
        return ended

    @service.handler()
    async def fan_out(ctx: restate.Context, width: int) -> None:
        await restate.gather(*(ctx.run_typed("noop", nothing) for _ in range(width)))

    return restate.app([service])


async def main(name, port):
    """Serve until SIGTERM."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    config = Config()
    config.bind = [f"{LOCAL}:{port}"]
    config.errorlog = None
    await serve(application(name), config, shutdown_trigger=stopping.wait)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
