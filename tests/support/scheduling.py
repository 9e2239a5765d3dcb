"""Which tests go to which process, when several run them (`make test`)."""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

OF_PROCESSES = frozenset(
    {
        "test_cli",
        "test_dev",
        "test_embedded",
        "test_flower",
        "test_http_request",
        "test_library",
        "test_workers",
        "test_workers_bad_handlers",
        "test_workers_start",
    }
)
"""Files that start programs and mostly wait for them."""


class Scheduling(LoadScopeScheduling):
    """A file stays together, because its tests share fixtures; files that start programs stay together, too.

    Those wait most of their time and should not have to wait for each other; beside what only computes, they cost
    next to nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "programs" if PurePosixPath(path).stem in OF_PROCESSES else path
