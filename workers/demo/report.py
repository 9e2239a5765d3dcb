"""From records of modules to one report: totals, packages, what stands out. Pure; everything is plain JSON.

Charts and rankings speak of the library; its tests are counted, indexed and left out of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

Json = Mapping[str, Any]

COMPLEXITY_CLASSES: Final = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, None))
"""Upper bounds 10, 20 and 50 are the usual steps of risk (SEI, "Software Technology Roadmap", 1997)."""
HARDEST: Final = 15


def build(modules: Sequence[Json], quarantined: Sequence[Json], *, python: str, instance_id: str) -> dict[str, Any]:
    """Build the report.

    Args:
        modules: Records as `analysis.ModuleRecord` has them, in any order.
        quarantined: What is known of the modules without a record: `path`, `reason`, `line`.
        python: Version whose library this is.
        instance_id: The instance that made the records.
    """
    ordered = sorted(modules, key=lambda module: str(module["path"]))
    library = [module for module in ordered if not module["is_test"]]
    return {
        "python": python,
        "instance_id": instance_id,
        "totals": _totals(ordered, library, quarantined),
        "packages": _packages(library),
        "complexity": _complexity(library),
        "hardest": _hardest(library),
        "quarantined": sorted(quarantined, key=lambda entry: str(entry["path"])),
        "modules": ordered,
    }


def public_names(module: Json) -> Iterator[Json]:
    """Give all public functions, classes and methods of a module."""
    yield from module["functions"]
    for kind in module["classes"]:
        yield kind
        yield from kind["methods"]


def documented(named: Iterable[Json]) -> tuple[int, int]:
    """Count the names that have a docstring, and all names.

    >>> documented([{"doc": "Add."}, {"doc": None}])
    (1, 2)
    """
    docs = [name["doc"] is not None for name in named]
    return sum(docs), len(docs)


def _totals(modules: Sequence[Json], library: Sequence[Json], quarantined: Sequence[Json]) -> dict[str, Any]:
    names = [name for module in library for name in public_names(module)]
    with_doc, total = documented(names)
    return {
        "modules": len(modules),
        "library_modules": len(library),
        "test_modules": len(modules) - len(library),
        "quarantined": len(quarantined),
        "lines": sum(module["lines"] for module in modules),
        "library_lines": sum(module["lines"] for module in library),
        "classes": sum(len(module["classes"]) for module in library),
        "functions": total - sum(len(module["classes"]) for module in library),
        "measured_functions": sum(len(module["complexity"]) for module in library),
        "public_names": total,
        "documented_names": with_doc,
    }


def _packages(library: Sequence[Json]) -> list[dict[str, Any]]:
    """Sum up the modules of each top-level name, the largest first."""
    members: dict[str, list[Json]] = defaultdict(list)
    for module in library:
        members[module["module"].partition(".")[0]].append(module)
    packages = [_package(name, modules) for name, modules in members.items()]
    return sorted(packages, key=lambda package: (-package["lines"], package["name"]))


def _package(name: str, modules: Sequence[Json]) -> dict[str, Any]:
    with_doc, total = documented(public for module in modules for public in public_names(module))
    return {
        "name": name,
        "modules": len(modules),
        "lines": sum(module["lines"] for module in modules),
        "public_names": total,
        "documented_names": with_doc,
    }


def _complexity(library: Sequence[Json]) -> list[dict[str, Any]]:
    """Count the functions of each class of complexity; `to` is None for the last, open one."""
    values = [value for module in library for value in module["complexity"]]
    return [
        {
            "from": low,
            "to": high,
            "functions": sum(low <= value and (high is None or value <= high) for value in values),
        }
        for low, high in COMPLEXITY_CLASSES
    ]


def _hardest(library: Sequence[Json]) -> list[dict[str, Any]]:
    found = [
        {
            "name": f"{module['module']}.{prefix}{function['name']}",
            "path": module["path"],
            "line": function["line"],
            "complexity": function["complexity"],
        }
        for module in library
        for prefix, function in _callables(module)
    ]
    return sorted(found, key=lambda function: (-function["complexity"], function["name"]))[:HARDEST]


def _callables(module: Json) -> Iterator[tuple[str, Json]]:
    yield from (("", function) for function in module["functions"])
    for kind in module["classes"]:
        yield from ((f"{kind['name']}.", method) for method in kind["methods"])
