"""The plugin as pytest loads it, and the page of the documentation, which is a test file."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "howto" / "test-a-sequence.md"

FAILING = """
def test_that_fails(harness):
    run = harness.run([{"type": "step", "id": "a", "handler": "fail", "params": {"message": "no luck"}}])
    assert run.state == "completed"
"""


def run_pytest(folder: Path, content: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_page.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "orchestrator.testing.plugin", "-p", "no:cacheprovider", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def test_the_documentation_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    done = run_pytest(tmp_path, "\n\n".join(blocks))
    assert done.returncode == 0, done.stdout
    assert f"{sum(block.count('def test_') for block in blocks)} passed" in done.stdout


def test_a_failed_comparison_of_a_state_shows_the_tree(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FAILING)
    assert done.returncode == 1
    assert re.search(r"E +AssertionError: assert 'failed' == 'completed'", done.stdout), done.stdout
    assert re.search(r"E +a +fail +FAILED ! no luck", done.stdout), done.stdout


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
