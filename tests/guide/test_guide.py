"""Every command of the guide is run, and answers what the guide says."""

import re
import shutil
from pathlib import Path

import pytest

from tests.guide.pages import GUIDE, Example, difference, examples, page
from tests.guide.server import Guided
from tests.support.waiting import wait_until

PAGES = sorted(GUIDE.glob("*.md"))
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")


@needs_curl
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_says_what_the_server_answers(path: Path, server: Guided) -> None:
    names: dict[str, str] = {}
    for example in examples(page(path.name, path.stem)):
        follow(server, example, names, path)


def follow(server: Guided, example: Example, names: dict[str, str], path: Path) -> None:
    """Run one example; one that only reads is asked again until its answer is the one shown."""
    said: str | None = None

    def fits() -> bool:
        nonlocal said
        said = difference(example, server.run(example.commands, names, path.stem), names)
        return said is None

    def what() -> str:
        return f"{path.name}:{example.line} answers as shown\n{example.commands}{said}"

    if example.only_reads:
        wait_until(fits, what)
    else:
        assert fits(), what()


def test_every_page_is_in_the_index() -> None:
    linked = re.findall(r"\]\(([\w-]+\.md)\)", (GUIDE / "README.md").read_text())
    assert {path.name for path in PAGES} - {"README.md"} <= set(linked)


@pytest.mark.parametrize(
    ("shown", "given"),
    [
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": 1, "…": "…"}', '{"b": 2}'),
        ("[1]", "[1, 2]"),
        ('[1, "…"]', "[]"),
        ('{"a": "$x", "b": "$x"}', '{"a": "1", "b": "2"}'),
        ('{"a": "$known"}', '{"a": "other"}'),
        ('"a…"', '"b"'),
        ("true", "1"),
        ("1", "no JSON"),
    ],
)
def test_other_answers_are_noticed(shown: str, given: str) -> None:
    example = Example(line=1, commands="", answer=shown, is_json=True)
    assert difference(example, given, {"known": "value"}) is not None


def test_answers_give_names_to_values() -> None:
    names = {"old": "1"}
    example = Example(line=1, commands="", answer='[{"id": "$new", "of": "x-$old", "…": "…"}, "…"]', is_json=True)
    assert difference(example, '[{"id": "7", "of": "x-1", "more": 0}, 2, 3]', names) is None
    assert names == {"old": "1", "new": "7"}
