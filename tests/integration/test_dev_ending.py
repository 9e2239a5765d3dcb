"""`orchestrator dev` that is told to end while a step runs: nothing is killed, and the step runs again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from orchestrator import embedded
from orchestrator.embedded import home
from tests.contract.client import TENANT, definition, step
from tests.support import effects
from tests.support.databases import ask
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


class Dev:
    """`orchestrator dev` over servers that others have started."""

    def __init__(self, url: str, redis_url: str, directory: Path) -> None:
        self.database = url
        self.log = directory / "dev.log"
        port = home.free_port()
        self.address = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORCH", "API_KEY"))}
        environment = kept | {
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "PYTHONPATH": str(REPOSITORY),
            "ORCHESTRATOR_IMPORT": "tests.support.handlers",
            effects.PATH_VARIABLE: str(directory / "effects"),
        }
        command = [sys.executable, "-m", "orchestrator.cli", "dev", "--port", str(port), "--concurrency", "1"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(directory / "home")],
                cwd=directory,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        return ask(self.database, statement)


@pytest.fixture
def dev(servers: embedded.Servers, tmp_path: Path) -> Iterator[Dev]:
    """A running `dev` with an empty database, gone after the test."""
    running = Dev(embedded.fresh_database(servers, f"dev_{uuid4().hex}"), servers.redis_url, tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(60)


def test_a_running_step_is_given_back_when_dev_ends(dev: Dev, tmp_path: Path) -> None:
    wait_until(lambda: dev.says("orchestrator is ready"), dev.log.read_text)
    params = {"path": str(tmp_path / "go"), "seconds": 600}
    slow = step("a", "until_released", params=params)
    with httpx.Client(base_url=f"{dev.address}/api/v1", timeout=30) as client:
        sequence = client.post("/sequences", json=definition(slow)).json()["id"]
        wanted = {"sequence_id": sequence, "tenant_id": TENANT, "namespace": "default"}
        assert client.post("/instances", json=wanted).status_code == 201
    wait_until(lambda: dev.rows("SELECT 1 FROM steps WHERE state = 'claimed'"), dev.log.read_text)
    dev.process.send_signal(signal.SIGTERM)
    assert dev.process.wait(60) == 0, dev.log.read_text()
    assert not dev.says("did not end in time"), dev.log.read_text()
    assert dev.rows("SELECT state, losses FROM steps") == [("ready", 0)]
