"""A real PgBouncer that pools transactions, between a test and its PostgreSQL.

The program is that of PATH; or Debian's, unpacked into `build/pgbouncer` without being installed, which needs no root.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.embedded import without_driver
from tests.support.debian import free_port, libraries, unpacked
from tests.support.waiting import wait_until

PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
"""The program, and what it needs that a small Debian does not have."""

CONFIGURATION = """\
[databases]
* = host={host} port={server_port} user={user} password={password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
{more}
"""


class PgBouncer:
    """One PgBouncer, which may be killed and started again on its port.

    Args:
        directory: For its configuration and its log.
        url: Of the server behind it.
        sessions: Sessions of the server that all its clients share, for each database.
        forgets_options: Take the options of a client and drop them, instead of refusing the client.
    """

    def __init__(self, directory: Path, url: str, *, sessions: int, forgets_options: bool = False) -> None:
        server = urlsplit(without_driver(url))
        self._program, self._libraries = _program()
        self._port = free_port()
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        (directory / "pgbouncer.ini").write_text(
            CONFIGURATION.format(
                host=server.hostname,
                server_port=server.port,
                user=server.username,
                password=server.password,
                port=self._port,
                sessions=sessions,
                more="ignore_startup_parameters = options" if forgets_options else "",
            )
        )

    def url_of(self, url: str) -> str:
        """Give the URL by which a database is reached through it."""
        return f"postgresql://anyone@127.0.0.1:{self._port}{urlsplit(without_driver(url)).path}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # As root it reads its configuration, then becomes another.
        account = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (self._directory / "pgbouncer.log").open("ab") as log:
            self._child = subprocess.Popen(
                [self._program, *account, self._directory / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "LD_LIBRARY_PATH": self._libraries},
            )
        wait_until(self._answers, lambda: f"PgBouncer to answer\n{self.log()}")

    def kill(self) -> None:
        """Kill it: every client loses its connection, and every session of the server ends."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
            self._child = None

    @property
    def pid(self) -> int:
        """Return its process."""
        assert self._child is not None
        return self._child.pid

    def log(self) -> str:
        """Return what it has said."""
        return (self._directory / "pgbouncer.log").read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, f"PgBouncer has ended\n{self.log()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def pooling(directory: Path, url: str, *, sessions: int, forgets_options: bool = False) -> Iterator[PgBouncer]:
    """Run a PgBouncer for a block; see `PgBouncer`. The test is skipped where there is none and none can be fetched."""
    directory.mkdir(parents=True, exist_ok=True)
    pooler = PgBouncer(directory, url, sessions=sessions, forgets_options=forgets_options)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.kill()


def _program() -> tuple[Path, str]:
    """Give the program and the folders of its libraries."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is not None:
        return Path(found), os.environ.get("LD_LIBRARY_PATH", "")
    folder = unpacked("pgbouncer", PACKAGES)
    return folder / "usr/sbin/pgbouncer", libraries(folder)
