"""Which tests cover which section of the contract: `python -m tests.contract_coverage`, or `make coverage-of-contract`.

Tests name their section (`test_s3_3_…` for 3.3 of the language, `test_api_10_5_…` for 10.5 of the HTTP contract);
what each section promises stands in `contract_index.toml`. A section with rules and without a test is an error.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TESTS: Final = Path(__file__).resolve().parent
_NAME: Final = re.compile(r"test_(s|api_)(\d+(?:_\d+)*)_")
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the language's contract and its tests, as `file::name`."""

    number: str
    title: str
    rules: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()
    reason: str = ""
    also: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Tell whether something is promised and nothing tests it."""
        return bool(self.rules) and not self.tests


@dataclass(slots=True)
class Coverage:
    """All sections, and the tests whose names lead to no section."""

    sections: list[Section] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


def read_index() -> dict[str, Any]:
    """Read the index."""
    return tomllib.loads((TESTS / "contract_index.toml").read_text())


def tests_of(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield every test function below a folder."""
    for path in sorted(root.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield path, node.name


def section_of(name: str, known: Mapping[str, Any], api: Mapping[str, Any]) -> str | None:
    """Return the section a test's name leads to; "" if it names none, None if it names one that does not exist.

    >>> section_of("test_s3_3_64_branches_run", {"3.3": ...}, {})
    '3.3'
    """
    found = _NAME.match(name)
    if found is None:
        return ""
    prefix, numbers = ("api.", api) if found[1] == "api_" else ("", known)
    parts = found[2].split("_")
    for count in range(len(parts), 0, -1):
        number = ".".join(parts[:count])
        if number in numbers or any(each.startswith(f"{number}.") for each in numbers):
            return prefix + number
    return None


def coverage() -> Coverage:
    """Bring index and tests together."""
    index = read_index()
    found: dict[str, list[str]] = defaultdict(list)
    result = Coverage()
    for path, name in tests_of(TESTS):
        relative = path.relative_to(TESTS.parent).as_posix()
        number = section_of(name, index["sections"], index["api"])
        if number is None:
            result.strays.append(f"{relative}::{name}")
        found[number or ""].append(f"{relative}::{name}")
    for number, entry in index["sections"].items():
        places = (number, *entry.get("also", ()))
        tests = tuple(test for place in places for test in _tests_at(place, found))
        fields = {name: tuple(entry.get(name, ())) for name in ("rules", "deferred", "also")}
        result.sections.append(Section(number, entry["title"], reason=entry.get("reason", ""), tests=tests, **fields))
    return result


def _tests_at(place: str, found: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield the tests of a section, or of a file or folder."""
    if place.startswith("tests/"):
        yield from (test for tests in found.values() for test in tests if test.startswith(place))
    else:
        yield from found.get(place, ())


def main() -> int:
    """Print every section; returns 1 if one is empty."""
    result = coverage()
    for section in result.sections:
        sys.stdout.write(f"{section.number:5} {section.title}: {len(section.tests)} tests\n")
        for rule in section.rules:
            sys.stdout.write(f"        . {rule}\n")
        for rule in section.deferred:
            sys.stdout.write(f"        - not yet: {rule} ({section.reason})\n")
        names = [test.rpartition("::")[2] for test in section.tests[:_SHOWN]]
        if names:
            sys.stdout.write(f"        {', '.join(names)}{' …' if len(section.tests) > _SHOWN else ''}\n")
    empty = [section for section in result.sections if section.is_empty]
    for section in empty:
        sys.stderr.write(f"no test covers section {section.number}, {section.title}\n")
    for stray in result.strays:
        sys.stderr.write(f"{stray} names a section that does not exist\n")
    return 1 if empty or result.strays else 0


if __name__ == "__main__":
    sys.exit(main())
