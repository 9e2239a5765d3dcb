"""The guard: ends the children of a supervisor that died without doing so itself.

It reads one line for each child that starts (`+ pid started`) or has ended (`- pid`). When the pipe closes, the
supervisor is gone, however it went, and the children that are left get SIGTERM, then their groups SIGKILL.

`PR_SET_PDEATHSIG` would need no process, but it fires when the *thread* that started the child ends, leaves
grandchildren (the pool of a Celery worker) alone, and exists on Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable

from orchestrator.embedded import processes
from orchestrator.embedded.processes import Deadline, Process

GRACE_SECONDS = 3.0
"""How long orphans may take to finish: whoever killed the supervisor wanted it gone."""


def children_left(lines: Iterable[str]) -> list[Process]:
    """Read until the supervisor is gone, and return what it has left behind.

    >>> [child.pid for child in children_left(["+ 7 a", "+ 8 b", "- 7"])]
    [8]
    """
    children: dict[int, Process] = {}
    for line in lines:
        sign, pid, *started = line.split()
        if sign == "+":
            children[int(pid)] = Process(pid=int(pid), started=started[0])
        else:
            children.pop(int(pid), None)
    return list(children.values())


def end_all(children: list[Process]) -> None:
    """End processes and the groups they lead."""
    alive = [child for child in children if processes.send(child, signal.SIGTERM)]
    deadline = Deadline.after(GRACE_SECONDS)
    for child in alive:
        processes.wait_for_end(child, deadline)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    end_all(children_left(sys.stdin))
