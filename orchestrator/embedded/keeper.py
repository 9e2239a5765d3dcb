"""The keeper: a small process that ends the servers when the last of their owners has ended, however it ended.

`PR_SET_PDEATHSIG` would do this without a process, but it fires when the *thread* that launched the server ends, knows
one owner only, and exists on Linux alone. The keeper waits for processes that are not its children, asleep.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.embedded import processes
from orchestrator.embedded.home import Record, load_record
from orchestrator.embedded.processes import Deadline
from orchestrator.embedded.servers import end_without_owners

LOOK_AGAIN_SECONDS = 30.0
"""How often the record is read again while its first owner lives, to know the pids of restarted servers."""


def keep(directory: Path, known: Record) -> None:
    """Return once nobody owns the servers and they have ended."""
    while (known := end_without_owners(directory, known)).owners:
        processes.wait_for_end(known.owners[0], Deadline.after(LOOK_AGAIN_SECONDS))


if __name__ == "__main__":
    keep(Path(sys.argv[1]), load_record(sys.argv[2]))
