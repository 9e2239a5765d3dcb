"""What holds for the whole tree: layers, purity, and nothing of the machine it was written on."""

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ("orchestrator/core", "sequences")
ALLOWED_IN_CORE = {"orchestrator.core", "sequences", "orjson", "jsonschema_rs", "pydantic", "pydantic_core"}
"""Libraries that compute and do nothing else."""
IMPURE_MODULES = {
    "asyncio",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
}
IMPURE_CALLS = {
    "open",
    "print",
    "input",
    "exec",
    "eval",
    "datetime.now",
    "datetime.utcnow",
    "date.today",
    "uuid4",
    "uuid1",
}
TEXT = {".cfg", ".ini", ".json", ".lock", ".lua", ".md", ".mako", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}
FORBIDDEN = {
    "a path of a machine": re.compile(r"/(?:home|root|Users)/[\w.-]+|/work/\w+|[A-Z]:\\\\Users"),
    "a package registry": re.compile(
        r"(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|npmjs\.com|proxy\.golang\.org|index-url\s*=?\s*http"
        r"|extra-index-url|find-links)",
        re.IGNORECASE,
    ),
}
MAY_NAME_THEM = {"tests/architecture/test_tree.py"}


def _files() -> list[str]:
    """List the files of the tree that git knows or would add, this one's patterns aside."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is not a checkout")
    names = sorted(set(listed.stdout.splitlines()) - MAY_NAME_THEM)
    return [name for name in names if Path(name).suffix in TEXT and (ROOT / name).is_file()]


def _hits(pattern: re.Pattern[str]) -> Iterator[str]:
    for name in _files():
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if match := pattern.search(line):
                yield f"{name}:{number}: {match[0]}"


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    assert list(_hits(FORBIDDEN[what])) == []


def test_no_file_names_the_machine_it_was_written_on() -> None:
    host = socket.gethostname()
    if len(host) < 6 or host in {"localhost", "runner"}:
        pytest.skip(f"the name {host!r} says nothing")
    assert list(_hits(re.compile(rf"\b{re.escape(host)}\b"))) == []


@pytest.mark.parametrize(
    ("what", "line"),
    [("a path of a machine", "x = '/home/ada/project'"), ("a package registry", "--extra-index-url x")],
)
def test_what_is_forbidden_would_be_noticed(what: str, line: str) -> None:
    assert FORBIDDEN[what].search(line)


def test_the_layers_hold() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([command, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def _pure_files() -> list[Path]:
    return [path for folder in PURE for path in sorted((ROOT / folder).rglob("*.py"))]


def impurities(source: str) -> list[str]:
    """Name what a module imports or calls that depends on more than its arguments."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if not _is_pure(name.name)]
            case ast.ImportFrom(module=str(module), names=names) if not _is_pure(module):
                found.append(module)
            case ast.ImportFrom(module="random", names=names):
                found += [f"random.{name.name}" for name in names if name.name != "Random"]
            case ast.Call(func=function) if ast.unparse(function) in IMPURE_CALLS:
                found.append(ast.unparse(function))
            case ast.Global():
                found.append("global " + ", ".join(node.names))
    return found


def _is_pure(module: str) -> bool:
    root = module.partition(".")[0]
    if module == "urllib.parse":
        return True
    if root in sys.stdlib_module_names:
        return root not in IMPURE_MODULES
    return any(module == allowed or module.startswith(f"{allowed}.") for allowed in ALLOWED_IN_CORE)


@pytest.mark.parametrize("path", _pure_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_core_and_the_language_are_pure(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import environ",
        "import structlog",
        "from random import choice",
        "from orchestrator.store import timers",
        "x = datetime.now()",
        "def f():\n    global x\n    x = 1",
    ],
)
def test_impurity_would_be_noticed(source: str) -> None:
    assert impurities(source)
