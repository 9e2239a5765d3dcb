"""The server that the guide talks to, and the shell that its readers sit at."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator import embedded
from orchestrator.embedded.home import free_port
from tests.guide.pages import GUIDE, examples, page
from tests.support.waiting import wait_until

KEY = "root-of-the-guide"
REPOSITORY = GUIDE.parents[1]
END_SECONDS = 60
COMMAND_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Guided:
    """A running server."""

    address: str
    log: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What a reader has exported."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {
            "PATH": path,
            "KEY": KEY,
            "ORCHESTRATOR_API_KEY": KEY,
            "ORCHESTRATOR_URL": self.address,
            "LANG": "C.UTF-8",
        }

    def run(self, commands: str, names: Mapping[str, str], tenant: str) -> str:
        """Type commands into a shell that has read the first page; returns what they print."""
        preamble = next(each.commands for each in examples(page("README.md", tenant)))
        script = f"{preamble}\n{commands}".replace("http://localhost:8080", self.address)
        ended = subprocess.run(
            ["/bin/bash", "-eu", "-c", script],
            env={**self.environment, **names},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.log.parent,
            timeout=COMMAND_SECONDS,
        )
        assert ended.returncode == 0, f"status {ended.returncode}: {ended.stdout}{ended.stderr}"
        return ended.stdout


@contextmanager
def guided(servers: embedded.Servers, directory: Path) -> Iterator[Guided]:
    """Run `orchestrator server` over an empty database."""
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ORCH8_", "ORCHESTRATOR_"))},
        "DATABASE_URL": embedded.fresh_database(servers, f"guide_{os.getpid()}"),
        "REDIS_URL": servers.redis_url,
        "ORCH8_HTTP_ADDR": address,
        "ORCH8_API_KEY": KEY,
        "ORCH8_ENCRYPTION_KEY": "0" * 64,
        "ORCH8_WEBHOOK_URLS": "https://127.0.0.1:9/hooks/flows",
        "ORCHESTRATOR_SHUTDOWN_GRACE": "0.1",
        "PYTHONPATH": str(REPOSITORY),
    }
    log = directory / "server.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "server"],
            cwd=directory,
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Guided(address=f"http://{address}", log=log)
        wait_until(lambda: _is_ready(server.address), lambda: f"readiness\n{log.read_text()}")
        yield server
    finally:
        process.terminate()
        process.wait(END_SECONDS)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
