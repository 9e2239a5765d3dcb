"""Name the installed packages that the engine does not need at run time, one on each line.

    python prune.py flower | xargs pip uninstall --yes

The lock file pins runtime, tests and benchmarks together, so that all of it is installed by hash. An image needs the
first part only: what is kept is what `orchestrator` and the given extras ask for, and what those ask for in turn.
"""

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

INSTALLER = frozenset({"pip", "setuptools"})
"""Taken out last of all."""


def needed(package: str, extras: Iterable[str]) -> set[str]:
    """Give the names of a package and of all it needs on this system, itself included.

    Args:
        package: Name of an installed package.
        extras: Those of its extras that count.
    """
    found: set[str] = set()
    asked: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(package), frozenset(extras))]
    while waiting:
        wish = waiting.pop()
        if wish in asked:
            continue
        asked.add(wish)
        name, chosen = wish
        try:
            texts = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        waiting += [
            (canonicalize_name(requirement.name), frozenset(requirement.extras))
            for requirement in map(Requirement, texts)
            if _applies(requirement, chosen)
        ]
    return found


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def unneeded(package: str, extras: Iterable[str]) -> list[str]:
    """Give the names of all other installed packages, sorted."""
    installed = {canonicalize_name(distribution.name) for distribution in distributions()}
    return sorted(installed - needed(package, extras) - INSTALLER)


if __name__ == "__main__":
    print("\n".join(unneeded("orchestrator", sys.argv[1:])))
