"""Commands in this process, against a server over the database of the test."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.cli import main
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.integration.cli.hands import Cli, Said
from tests.support.serving import Reception


@pytest.fixture
def cli(
    reception: Reception,
    engine: Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Run a command in this process, against a server over this test's database."""
    for name in ("ORCHESTRATOR_API_KEY", "ORCH8_API_KEY", "ORCHESTRATOR_OUTPUT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    monkeypatch.setenv("ORCHESTRATOR_URL", reception.address(engine, settings))
    monkeypatch.setenv("ORCHESTRATOR_TENANT", "shop")
    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    def write_json(value: Any) -> str:
        path = tmp_path / f"{uuid4()}.json"
        path.write_text(json.dumps(value))
        return str(path)

    return write_json
