"""Which tests go to which process, when several run them (`make test`)."""

from pathlib import PurePosixPath
from typing import Final

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_FAULTS: Final = "faults"
_CAMPAIGN: Final = "campaign"
_PROGRAMS: Final = "programs"

OF_PROCESSES = frozenset(
    {
        "test_dev",
        "test_embedded",
        "test_flower",
        "test_http_request",
        "test_library",
        "test_processes",
        "test_rabbitmq",
        "test_workers",
        "test_workers_bad_handlers",
        "test_workers_drain",
        "test_workers_start",
    }
)
"""Files that start programs and mostly wait for them."""

OF_FAULTS = ("tests/faults/", "tests/soak/")
"""Folders of tests that strike an installation; it is one for most of them, and they never strike side by side."""

OF_CAMPAIGN = "tests/faults/test_nightly.py"
"""Strikes an installation of its own, for longer than any other file."""


class Scheduling(LoadScopeScheduling):
    """A file stays together, because its tests share fixtures; files that start programs stay together, too.

    Those wait most of their time and should not have to wait for each other; beside what only computes, they cost
    next to nothing. So do faults. They go first, as nothing else takes so long.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        for first in (_PROGRAMS, _CAMPAIGN, _FAULTS):
            if first in self.workqueue:
                self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path == OF_CAMPAIGN:
            return _CAMPAIGN
        if path.startswith(OF_FAULTS):
            return _FAULTS
        return _PROGRAMS if PurePosixPath(path).stem in OF_PROCESSES else path
