"""The short form of the restore to a moment in the middle."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.long import only_long
from tests.faults.restore import rehearse

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]


@only_long
def test_what_is_restored_to_a_moment_runs_to_its_end() -> None:
    directory = Path(tempfile.mkdtemp(prefix="restore-"))
    try:
        assert not rehearse(directory, 10)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
