"""The documents say what the code says."""

import ast
import importlib.util
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import ModuleType

import pytest
import typer

from orchestrator.cli.app import app
from orchestrator.core.states import INSTANCE_MOVES, NODE_MOVES, STEP_MOVES
from orchestrator.settings import Settings
from sequences.filters import FILTERS
from sequences.functions import FUNCTIONS
from sequences.help import FILTERS_HELP, FUNCTIONS_HELP

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("orchestrator", "queues", "sequences", "workers")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generate()


@pytest.mark.parametrize("path", generate.documents(), ids=lambda path: path.name)
def test_generated_parts_are_current(path: Path) -> None:
    assert generate.current(path.read_text()) == path.read_text(), "run `python docs/generate.py`"


@pytest.mark.parametrize("name", generate.FILES)
def test_generated_files_are_current(name: str) -> None:
    assert (DOCS / name).read_text() == generate.FILES[name](), "run `python docs/generate.py`"


def test_every_filter_and_every_function_is_explained() -> None:
    assert [each.name for each in FILTERS_HELP] == list(FILTERS)
    assert [each.name for each in FUNCTIONS_HELP] == list(FUNCTIONS)


def test_settings_and_life_cycle_are_generated() -> None:
    assert {path.name for path in generate.documents()} >= {"settings.md", "lifecycle.md"}


@pytest.mark.parametrize(
    ("title", "moves"), [("Instance", INSTANCE_MOVES), ("Node", NODE_MOVES), ("Open step", STEP_MOVES)]
)
def test_every_state_and_every_arrow_is_explained(title: str, moves: Mapping[StrEnum, Collection[StrEnum]]) -> None:
    chapter = (DOCS / "lifecycle.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    arrows = re.findall(r"^\| `(\w+) → (\w+)` \|", chapter, re.MULTILINE)
    assert sorted(arrows) == sorted((str(source), str(target)) for source in moves for target in moves[source])
    states = re.findall(r"^\| `(\w+)` \|", chapter, re.MULTILINE)
    assert sorted(states) == sorted(type(next(iter(moves))))


@pytest.mark.parametrize("folder", ["orchestrator", "workers", "queues"])
def test_the_architecture_names_every_module(folder: str) -> None:
    text = (DOCS / "architecture.md").read_text()
    modules = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert sorted(name for name in modules if f"`{name}`" not in text) == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_description(name: str) -> None:
    assert Settings.model_fields[name].description


def _events() -> Iterator[str]:
    """Find the names in `log.info("name", ...)` and `bound.log(level, "name", ...)`."""
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if not (isinstance(call.func.value, ast.Name) and call.func.value.id in {"log", "bound"}):
                continue
            at = {"log": 1, **dict.fromkeys(LEVELS, 0)}.get(call.func.attr)
            if at is not None:
                name = call.args[at]
                assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: the name of an event is a constant"
                assert isinstance(name.value, str)
                yield name.value


def test_every_log_event_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "events.md").read_text(), re.MULTILINE)
    assert listed == sorted(listed)
    assert set(listed) == set(_events())


def test_events_are_found_in_the_code() -> None:
    assert {"child_lost", "step_log", "broker_was_emptied"} <= set(_events())


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in name or name.endswith("performance.md"):
            continue
        other = (path.parent / name).resolve() if name else path
        assert other.exists(), f"{path.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
            assert anchor in {_anchor(title) for title in titles}, f"{path.name} links to {target}"


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (name for group in project["optional-dependencies"].values() for name in group)
    names = {re.split(r"[>=<~! ]", wish)[0] for wish in (*project["dependencies"], *extras)}
    named = set(re.findall(r"`([^`]+)`", (DOCS / "decisions" / "0001-dependencies.md").read_text()))
    assert {name for name in names if not re.search(r"^types-|-types$", name)} <= named


def test_what_the_documents_call_a_command_is_one() -> None:
    root = typer.main.get_command(app)
    texts = [path.read_text() for path in DOCS.rglob("*.md")]
    used = {name for text in texts for name in re.findall(r"^(?:\.venv/bin/)?orchestrator (\w+)", text, re.MULTILINE)}
    assert used
    assert used <= set(getattr(root, "commands", {}))


def test_a_word_is_explained_once() -> None:
    words = re.findall(r"^\| ([a-z][\w ]*) \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(set(words))


def test_each_decision_has_a_number_of_its_own() -> None:
    notes = sorted((DOCS / "decisions").glob("*.md"))
    assert [note.name[:4] for note in notes] == [f"{number:04}" for number in range(1, len(notes) + 1)]
    assert [note.name for note in notes if not note.read_text().startswith(f"# {note.name[:4]} ")] == []
