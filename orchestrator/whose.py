"""A check that `orchestrator`, `workers`, `queues` and `sequences` are ours: their names are common."""

import importlib.util
from pathlib import Path

from orchestrator.errors import ConfigurationError

PACKAGES = ("orchestrator", "workers", "queues", "sequences")
_ROOT = Path(__file__).resolve().parent.parent


def check_packages() -> None:
    """Make sure that every package of ours is imported from where this one is.

    Raises:
        ConfigurationError: Another package of that name comes first on the path; the message names its file.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parent.parent != _ROOT:
            raise ConfigurationError(
                f"the package {name!r} that Python finds is not ours: {origin} shadows it; rename that package, or run "
                "from a folder that does not contain it"
            )
