"""A real primary of Redis with a replica, and three Sentinels that watch it."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from orchestrator.embedded.binaries import find_redis
from tests.support.debian import free_port
from tests.support.waiting import wait_until

PRIMARY = "mymaster"
SENTINEL = """\
port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor {primary} 127.0.0.1 {watched} 2
sentinel auth-pass {primary} {password}
sentinel down-after-milliseconds {primary} 1000
sentinel failover-timeout {primary} 5000
"""
PASSWORD = "p@ss:word"


class Watched:
    """The servers; made by `watched`."""

    def __init__(self, sentinels: Sequence[int], processes: dict[int, subprocess.Popen[bytes]]) -> None:
        self._sentinels = sentinels
        self._processes = processes
        addresses = ";".join(f"sentinel://:{quote(PASSWORD)}@127.0.0.1:{port}/0" for port in sentinels)
        self.url = f"{addresses}#{PRIMARY}"

    def primary(self) -> int | None:
        """Give the port of the primary, as the first Sentinel sees it; None before it sees one."""
        with Redis(port=self._sentinels[0]) as redis:
            try:
                answer = redis.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", PRIMARY)
            except RedisError:
                return None
        return None if answer is None else int(answer[1])

    def is_watched(self) -> bool:
        """Tell whether every Sentinel knows of the others and of a replica."""
        return all(_knows(port) for port in self._sentinels)

    def kill(self, port: int) -> None:
        """Kill a server at once."""
        self._processes[port].send_signal(signal.SIGKILL)
        self._processes[port].wait()


def _knows(sentinel: int) -> bool:
    with Redis(port=sentinel) as redis:
        try:
            state = redis.sentinel_master(PRIMARY)
        except RedisError:
            return False
    return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 and state["flags"] == "master"


@contextmanager
def watched(directory: Path) -> Iterator[Watched]:
    """Start all, wait until they know of one another, and end them after the block."""
    program = str(find_redis(None).path)
    primary, replica, *sentinels = (free_port() for _ in range(5))
    login = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--bind", "127.0.0.1", "--save", ""]
    commands = {
        primary: [program, "--port", str(primary), *login],
        replica: [program, "--port", str(replica), *login, "--replicaof", "127.0.0.1", str(primary)],
    }
    for port in sentinels:
        folder = directory / str(port)
        folder.mkdir(parents=True)
        written = SENTINEL.format(
            port=port, directory=folder, primary=PRIMARY, watched=primary, password=f'"{PASSWORD}"'
        )
        (folder / "sentinel.conf").write_text(written)
        commands[port] = [program, str(folder / "sentinel.conf"), "--sentinel"]
    processes: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for port, command in commands.items():
            with (directory / f"{port}.log").open("wb") as log:
                processes[port] = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        found = Watched(sentinels, processes)
        wait_until(found.is_watched, "the Sentinels to know of all")
        yield found
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
