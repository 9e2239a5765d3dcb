"""The report as one HTML page that needs nothing from outside. Pure, apart from reading its template."""

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from string import Template

from workers.demo import charts
from workers.demo.charts import Bar, Dot
from workers.demo.publishing import JSON_NAME
from workers.demo.report import Json, documented, public_names

LARGEST = 15


def render(report: Json) -> str:
    """Give the page of a report made by `report.build`."""
    totals = report["totals"]
    largest = report["packages"][:LARGEST]
    return _template().substitute(
        title=f"The Python {escape(report['python'])} library",
        lead=_lead(totals),
        tiles=_tiles(totals),
        lines_chart=charts.rows([_lines_bar(package) for package in largest], title="Lines by package"),
        docs_chart=charts.rows([_docs_bar(package) for package in largest], title="Documented names", top=1.0),
        complexity_chart=charts.columns(
            [_complexity_bar(row, totals["measured_functions"]) for row in report["complexity"]],
            title="Functions by complexity",
        ),
        scatter_chart=charts.scatter(
            [_module_dot(module) for module in report["modules"] if not module["is_test"] and module["complexity"]],
            title="Lines and complexity of modules",
            x_name="lines →",
            y_name="↑ hardest function",
        ),
        hardest=_hardest(report["hardest"]),
        quarantined=_quarantined(report["quarantined"]),
        modules=_modules(report["modules"]),
        module_count=f"{totals['modules']:,}",
        instance_id=escape(report["instance_id"]),
        json_name=JSON_NAME,
    )


@cache
def _template() -> Template:
    return Template((resources.files("workers.demo") / "page.html").read_text(encoding="utf-8"))


def _lead(totals: Json) -> str:
    return (
        f"{totals['modules']:,} modules were read and parsed: {totals['library_modules']:,} of the library itself and "
        f"{totals['test_modules']:,} that its tests rest on. Charts and rankings speak of the library alone."
    )


def _tiles(totals: Json) -> str:
    share = _share(totals["documented_names"], totals["public_names"])
    tiles = [
        (f"{totals['modules']:,}", "modules indexed", ""),
        (f"{totals['quarantined']:,}", "quarantined", "alert" if totals["quarantined"] else ""),
        (f"{totals['lines']:,}", "lines of source", ""),
        (f"{totals['functions']:,}", "public functions and methods", ""),
        (f"{totals['classes']:,}", "public classes", ""),
        (share, "of them with a docstring", ""),
    ]
    return "".join(f'<li class="{kind}"><b>{value}</b><span>{name}</span></li>' for value, name, kind in tiles)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def _lines_bar(package: Json) -> Bar:
    hint = f"{package['name']}: {package['lines']:,} lines in {_count(package['modules'], 'module')}"
    return Bar(label=package["name"], value=package["lines"], text=f"{package['lines']:,}", hint=hint)


def _docs_bar(package: Json) -> Bar:
    part, whole = package["documented_names"], package["public_names"]
    hint = f"{package['name']}: {part:,} of {_count(whole, 'public name')} documented"
    return Bar(label=package["name"], value=part / max(whole, 1), text=_share(part, whole), hint=hint)


def _complexity_bar(row: Json, measured: int) -> Bar:
    low, high, functions = row["from"], row["to"], row["functions"]
    label = f"over {low - 1}" if high is None else str(low) if low == high else f"{low}–{high}"
    hint = f"complexity {label}: {_count(functions, 'function')}, {_share(functions, measured)}"
    return Bar(label=label, value=functions, text=f"{functions:,}", hint=hint)


def _module_dot(module: Json) -> Dot:
    hardest = max(module["complexity"])
    hint = f"{module['module']}: {_count(module['lines'], 'line')}, hardest function {hardest}"
    return Dot(x=module["lines"], y=hardest, hint=hint)


def _count(number: int, noun: str) -> str:
    """Say how many.

    >>> _count(1, "line"), _count(1200, "line")
    ('1 line', '1,200 lines')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _code(name: str) -> str:
    """Show a dotted or slashed name; a line may break after each part.

    >>> _code("a.b")
    '<code>a.<wbr>b</code>'
    """
    return f"<code>{escape(name).replace('.', '.<wbr>').replace('/', '/<wbr>').replace('_', '_<wbr>')}</code>"


def _hardest(functions: Sequence[Json]) -> str:
    rows = ((_code(function["name"]), f"{function['line']:,}", f"{function['complexity']:,}") for function in functions)
    return _table(("function", "line", "complexity"), rows, numbers=2)


def _quarantined(entries: Sequence[Json]) -> str:
    if not entries:
        return '<p class="soft">None: every module of this library parses.</p>'
    rows = (
        (
            _code(entry["path"]),
            escape(entry["reason"]),
            "–" if entry["line"] is None else f"{entry['line']:,}",
        )
        for entry in entries
    )
    return _table(("module", "reason", "line"), rows, numbers=1)


def _modules(modules: Iterable[Json]) -> str:
    return _table(
        ("module", "lines", "functions", "classes", "documented", "hardest"),
        (_module_row(module) for module in modules),
        numbers=5,
        name="modules",
    )


def _module_row(module: Json) -> tuple[str, ...]:
    doc = f'<br><span class="soft">{escape(module["doc"])}</span>' if module["doc"] else ""
    with_doc, names = documented(public_names(module))
    return (
        f"{_code(module['module'])}{doc}",
        f"{module['lines']:,}",
        f"{names - len(module['classes']):,}",
        f"{len(module['classes']):,}",
        _share(with_doc, names),
        f"{max(module['complexity'], default=0):,}" if module["complexity"] else "–",
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int, name: str = "") -> str:
    """Give a table whose last `numbers` columns hold numbers; the cells are HTML."""
    first = len(heads) - numbers

    def cells(tag: str, values: Sequence[str]) -> str:
        marks = [' class="number"' if column >= first else "" for column in range(len(values))]
        return "".join(f"<{tag}{mark}>{value}</{tag}>" for mark, value in zip(marks, values, strict=True))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    identity = f' id="{name}"' if name else ""
    return f"<table{identity}><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>"
