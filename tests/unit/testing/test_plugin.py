"""The plugin as pytest loads it, and the page of the documentation, which is a test file."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "howto" / "test-a-sequence.md"

FAILING = """
def test_that_fails(harness):
    run = harness.run([{"type": "step", "id": "a", "handler": "fail", "params": {"message": "no luck"}}])
    assert run.state == "completed"
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of the page, and of a test that fails."""
    folder = tmp_path_factory.mktemp("plugin")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "test_page.py").write_text("\n\n".join(blocks))
    (folder / "test_failing.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "orchestrator.testing.plugin", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_the_documentation_runs(told: str) -> None:
    count = PAGE.read_text().count("def test_")
    assert count
    assert f"1 failed, {count} passed" in told, told


def test_a_failed_comparison_of_a_state_shows_the_tree(told: str) -> None:
    assert re.search(r"E +AssertionError: assert 'failed' == 'completed'", told), told
    assert re.search(r"E +a +fail +FAILED ! no luck", told), told


def test_the_plugin_is_announced_under_the_name_of_its_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = "orchestrator.testing.plugin"
    assert project["entry-points"]["pytest11"] == {name: name}
    assert not [line for line in project["dependencies"] if line.startswith("pytest")]


def test_no_process_needs_pytest_or_imports_what_only_migrations_need() -> None:
    """Alembic and SQLAlchemy take longer to import than anything else that is used."""
    without = "import sys; sys.modules |= dict.fromkeys(['pytest', 'alembic', 'sqlalchemy']); "
    code = without + "import orchestrator.testing, orchestrator.server, orchestrator.service, workers"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=200)
