"""What processes cost: read from `/proc`, for a process and all that came from it."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.embedded import Servers

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of CPU since a process began, and bytes it holds in memory."""

    cpu_seconds: float
    bytes: int

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_seconds + other.cpu_seconds, self.bytes + other.bytes)


def family(roots: Iterable[int]) -> set[int]:
    """Give processes and all that came from them, as far as they still run."""
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _fields(int(path.name))):
            parents[int(path.name)] = int(fields[1])
    found = {root for root in roots if root in parents}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def children(mark: bytes) -> set[int]:
    """Give processes that came from this one and whose command line holds a mark."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in path.read_text().split()}
    return {pid for pid in family(found) if mark in _command_line(pid)}


def usage(pids: Iterable[int]) -> Usage:
    """Add up what processes have used; one that has ended counts nothing."""
    total = Usage(0.0, 0)
    for pid in pids:
        if fields := _fields(pid):
            total += Usage((int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * PAGE)
    return total


def spent(pids: Iterable[int]) -> float:
    """Add up the seconds of CPU that processes have used, and those that came from them and have ended."""
    return sum(sum(map(int, fields[11:15])) / TICKS for pid in pids if (fields := _fields(pid)))


def spent_by_part(servers: Servers) -> dict[str, float]:
    """Read the seconds of CPU that each part of an installation of this process has used until now.

    Raises:
        LookupError: PostgreSQL was started by somebody else, so what it costs is not to be seen.
    """
    if servers.postgres_pid is None:
        raise LookupError("PostgreSQL is not ours, so what it costs is not to be seen")
    return {
        "client": time.process_time(),
        "API": spent(children(b"\0api\0")),
        "loops": spent(children(b"orchestrator.service")),
        "PostgreSQL": spent(family([servers.postgres_pid])),
    }


def _command_line(pid: int) -> bytes:
    """Give the words of a command line, each with a NUL behind it; nothing for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _fields(pid: int) -> list[str]:
    """Give the fields of `/proc/<pid>/stat` after the name, which may itself hold blanks: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
