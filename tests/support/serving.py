"""APIs in threads of the test's process, on free ports."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from fastapi import FastAPI

from orchestrator.api import create_app
from orchestrator.api.services import Services
from orchestrator.engine import Engine
from orchestrator.server import Server
from orchestrator.settings import Settings

START_SECONDS = 60.0
LOOK_SECONDS = 0.005


class _Server(Server):
    """Looks whether it should end 200 times a second, not ten: most tests take less than a tenth."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve an app, on a free port if none is given, and give its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="on", ws="none")
    server = _Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(LOOK_SECONDS)
    bound = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{bound}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


class Reception:
    """Serves one app for each kind of settings, and gives it the engine of the test that asks.

    Building an app and starting its server takes longer than most tests; what an app remembers is in its services,
    and those are each test's own.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._served: dict[str, tuple[FastAPI, str]] = {}

    def address(self, engine: Engine, settings: Settings) -> str:
        """Give the address of an app with these settings, over this engine and its database from now on."""
        kind = settings.model_dump_json(exclude={"database_url"})
        if kind not in self._served:
            app = create_app(engine, settings)
            self._served[kind] = app, self._open.enter_context(serving(app))
        app, url = self._served[kind]
        app.state.services = Services.over(engine, settings)
        app.state.services.metrics.begin()
        return url

    def services(self, engine: Engine) -> Services:
        """Give the services that serve an engine."""
        every = [app.state.services for app, _ in self._served.values()]
        return next(each for each in every if each.engine is engine)

    def close(self) -> None:
        """End all servers."""
        self._open.close()
