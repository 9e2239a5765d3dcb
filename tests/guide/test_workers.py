"""The workers of the guide do their work: heartbeats, failures of both kinds, and an orderly end."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.guide.pages import GUIDE
from tests.guide.server import END_SECONDS, KEY, Guided
from tests.support.waiting import wait_until

NODE = shutil.which("node")
NODE_MAJOR = 18
MOST_LINES = 40
"""Of a worker: the protocol is a small one."""
STEP = {
    "handler": "draw",
    "queue_name": "pictures",
    "retry": {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 5},
}
POSTER = [{**STEP, "id": "draft", "params": {"width": 20}}, {**STEP, "id": "final", "params": {"width": 700}}]
BANNER = [{**STEP, "id": "banner", "params": {"width": 5000}}]


def _has_node() -> bool:
    if NODE is None:
        return False
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.", said)
    return version is not None and int(version[1]) >= NODE_MAJOR


LANGUAGES = [
    pytest.param("python", "py", sys.executable, id="python"),
    pytest.param(
        "javascript",
        "mjs",
        NODE,
        id="javascript",
        marks=pytest.mark.skipif(not _has_node(), reason=f"there is no node >= {NODE_MAJOR} on this machine"),
    ),
]


@pytest.mark.parametrize(("language", "ending", "interpreter"), LANGUAGES)
def test_worker_of_the_guide_works(
    language: str, ending: str, interpreter: str, server: Guided, tmp_path: Path
) -> None:
    page = (GUIDE / "worker-protocol.md").read_text()
    work, worker_code = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len([line for line in worker_code.splitlines() if line.strip()]) <= MOST_LINES
    (tmp_path / f"pictures.{ending}").write_text(work)
    (tmp_path / f"worker.{ending}").write_text(worker_code)
    headers = {"x-api-key": KEY, "x-tenant-id": language}
    with httpx.Client(base_url=f"{server.address}/api/v1", headers=headers, timeout=60) as http:
        banner = _start(http, "banner", BANNER)
        environment = {
            **os.environ,
            "ORCHESTRATOR_URL": server.address,
            "ORCHESTRATOR_API_KEY": KEY,
            "ORCHESTRATOR_TENANT": language,
            "HEARTBEAT_SECONDS": "0.05",
        }
        worker = subprocess.Popen([interpreter, tmp_path / f"worker.{ending}"], env=environment)
        try:
            wait_until(lambda: _state(http, banner) == "failed", "the end of what cannot be drawn")
            poster = _start(http, "poster", POSTER)
            wait_until(lambda: _beats(http, poster), "a heartbeat of the last step")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(END_SECONDS) == 0
        finally:
            worker.kill()
            worker.wait()
        assert _state(http, poster) == "completed", "what was begun before the signal is finished"
        assert [(each["block_id"], each["attempt"], each["outcome"]) for each in _attempts(http, poster)] == [
            ("draft", 0, "failed"),
            ("draft", 1, "completed"),
            ("final", 0, "completed"),
        ]
        data = http.get(f"/instances/{poster}").json()["context"]["data"]
        assert data["url"] == f"pictures/{poster}:final.png"
        assert [each["error"]["message"] for each in _attempts(http, banner)] == ["too wide"]


def _start(http: httpx.Client, name: str, blocks: list[dict[str, Any]]) -> str:
    assert http.post("/sequences", json={"id": name, "blocks": blocks}).status_code == 201
    answer = http.post(f"/sequences/{name}/instances", json={})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _beats(http: httpx.Client, instance: str) -> bool:
    tasks = http.get("/workers/tasks", params={"state": "claimed"}).json()
    return any(
        task["instance_id"] == instance and task["block_id"] == "final" and task["heartbeat_at"] > task["claimed_at"]
        for task in tasks
    )


def _state(http: httpx.Client, instance: str) -> str:
    return str(http.get(f"/instances/{instance}").json()["state"])


def _attempts(http: httpx.Client, instance: str) -> list[dict[str, Any]]:
    return list(http.get(f"/instances/{instance}/attempts").json())
