"""A harness in which every handler of the ready sequences has a part."""

import pytest

from orchestrator.testing import Harness
from tests.support.library import PARTS


@pytest.fixture
def harness() -> Harness:
    """A harness of this test's own; it begins on Monday, 2 March 2026, at noon UTC."""
    return Harness(PARTS)
