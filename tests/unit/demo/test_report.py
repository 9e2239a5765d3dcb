"""From records to totals, and to a page that is complete, escaped and needs nothing from outside."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson

from workers.demo import charts
from workers.demo.page import render
from workers.demo.publishing import publish
from workers.demo.report import build


def function(name: str = "f", complexity: int = 1, doc: str | None = None) -> dict[str, Any]:
    return {"name": name, "line": 1, "doc": doc, "complexity": complexity}


def module(path: str = "shop/cart.py", **members: Any) -> dict[str, Any]:
    name = path.removesuffix(".py").replace("/", ".")
    record = {"path": path, "module": name, "is_test": False, "lines": 10, "doc": None}
    return {**record, "functions": [], "classes": [], "complexity": [], **members}


def built(modules: list[dict[str, Any]], quarantined: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return build(modules, quarantined or [], python="3.11.7", instance_id="i-1")


LIBRARY = [
    module("shop/till.py", lines=30, functions=[function("pay", 12, "Pay.")], complexity=[12, 1]),
    module(
        "shop/cart.py",
        functions=[function("add", 3)],
        classes=[{"name": "Cart", "line": 2, "doc": "A cart.", "methods": [function("drop", 60)]}],
        complexity=[3, 60],
    ),
    module("abc.py", lines=5),
    module("shop/tests/test_cart.py", is_test=True, lines=1000, functions=[function("test_it", 99)], complexity=[99]),
]
BAD = [{"path": "b.py", "reason": "no", "line": 3}, {"path": "a.py", "reason": "<no>", "line": None}]


def test_totals_speak_of_the_library_and_count_its_tests() -> None:
    totals = built(LIBRARY, BAD)["totals"]
    assert (totals["modules"], totals["library_modules"], totals["test_modules"]) == (4, 3, 1)
    assert (totals["lines"], totals["library_lines"]) == (1045, 45)
    assert (totals["functions"], totals["classes"], totals["measured_functions"]) == (3, 1, 4)
    assert (totals["documented_names"], totals["public_names"], totals["quarantined"]) == (2, 4, 2)


def test_packages_are_summed_up_largest_first() -> None:
    packages = built(LIBRARY)["packages"]
    assert [(p["name"], p["modules"], p["lines"]) for p in packages] == [("shop", 2, 40), ("abc", 1, 5)]


def test_every_complexity_has_its_class() -> None:
    values = [1, 2, 5, 6, 10, 11, 20, 21, 50, 51, 4000]
    rows = built([module(complexity=values)])["complexity"]
    assert [row["functions"] for row in rows] == [1, 2, 2, 2, 2, 2]


def test_the_hardest_functions_are_named_in_full() -> None:
    assert [f["name"] for f in built(LIBRARY)["hardest"]] == ["shop.cart.Cart.drop", "shop.till.pay", "shop.cart.add"]


def test_the_order_of_records_does_not_matter() -> None:
    assert built(LIBRARY, BAD) == built(LIBRARY[::-1], BAD[::-1])


class Outline(HTMLParser):
    """Ids, and everything that would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in {"src", "srcset"} or (tag == "link" and name == "href"):
                self.fetched.append(value or "")


def test_the_page_needs_nothing_from_outside() -> None:
    page = render(built(LIBRARY, BAD))
    assert Outline(page).fetched == []
    assert "url(" not in page
    assert "@import" not in page
    assert "$" not in re.sub(r"(?s)<script>.*</script>", "", page), "a place of the template was not filled"
    assert {"modules", "search"} <= set(Outline(page).ids)


def test_the_page_is_for_light_and_dark() -> None:
    page = render(built(LIBRARY))
    assert "color-scheme: light dark" in page
    assert "prefers-color-scheme: dark" in page


def test_charts_are_well_formed() -> None:
    drawn = re.findall(r"(?s)<svg.*?</svg>", render(built(LIBRARY, BAD)))
    assert len(drawn) == 4
    for svg in drawn:
        ElementTree.fromstring(svg)


def test_names_and_reasons_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    hostile = module(f"{evil}.py", doc=evil, functions=[function(evil, 2, evil)], complexity=[2])
    page = render(built([hostile], [{"path": evil, "reason": evil, "line": 1}]))
    assert evil not in page


def test_an_empty_library_still_has_a_page() -> None:
    page = render(built([]))
    assert "every module of this library parses" in page


def test_charts_of_nothing_are_drawn() -> None:
    for svg in (
        charts.rows([], title="none"),
        charts.columns([], title="none"),
        charts.scatter([], title="none", x_name="x", y_name="y"),
        charts.rows([charts.Bar(label="a", value=0, text="0")], title="zero"),
        charts.scatter([charts.Dot(x=0, y=0, hint="at the edge")], title="zero", x_name="x", y_name="y"),
    ):
        ElementTree.fromstring(svg)


def test_publishing_twice_leaves_the_same_two_files(tmp_path: Path) -> None:
    report = built(LIBRARY, BAD)
    first = publish(tmp_path / "report", report, "page")
    assert publish(tmp_path / "report", report, "page") == first
    assert (first["indexed"], first["quarantined"]) == (4, 2)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["library-index.html", "library-index.json"]
    assert orjson.loads(Path(first["json"]).read_bytes()) == report
