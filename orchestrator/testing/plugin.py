"""The pytest plugin: the fixture `harness`, and the tree of a run where a comparison of its state fails.

Loaded by pytest through its entry point, so nothing of the engine is imported before a test asks for it.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from orchestrator.testing import Harness


@pytest.fixture
def harness() -> "Harness":
    """A harness of this test's own: runs sequences in memory."""
    from orchestrator.testing import Harness  # noqa: PLC0415 - see above

    return Harness()


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Show the tree of the run whose state is compared."""
    shown = [side.tree for side in (left, right) if type(side).__name__ == "RunState" and hasattr(side, "tree")]
    return [f"{left!r} {op} {right!r}", *shown[0].splitlines()] if shown else None
