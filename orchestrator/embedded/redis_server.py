"""The embedded Redis (Valkey, which speaks the same): write its settings, launch it, ask whether it is ready."""

from __future__ import annotations

import os
import shutil
import signal
import socket

from orchestrator.embedded import processes
from orchestrator.embedded.binaries import find_redis
from orchestrator.embedded.home import Home, Settings, give_file, give_folder, identity, rotate_log
from orchestrator.embedded.processes import Deadline, Launched, Process, ServersError, StopSteps

BROKER_DATABASE = 0
LIMITER_DATABASE = 1

STOP: StopSteps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
"""SIGTERM flushes the append-only file and ends, as SHUTDOWN does; seconds for each."""
STOP_AT_ONCE: StopSteps = STOP[1:]

CONFIGURATION = """\
# Written at every start.
bind 127.0.0.1
port {port}
unixsocket "{sockets}/redis.sock"
unixsocketperm 700
requirepass "{password}"
dir "{data}"
pidfile "{data}/redis.pid"
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
tcp-keepalive 30
"""


def launch(home: Home, settings: Settings, deadline: Deadline) -> Launched:
    """Launch the server; it may not be ready yet.

    Raises:
        ServersError: there is no program, or the data is in use elsewhere.
    """
    program = find_redis(home.account)
    lock = processes.lock(home.ground / "redis.lock", Deadline.after(min(10.0, deadline.left)))
    if lock is None:
        raise ServersError(f"the data in {str(home.redis_data)!r} is in use by a server that this process cannot see")
    try:
        give_folder(home.redis_data, home.account)
        give_file(home.redis_data / "redis.conf", _configuration(home, settings), home.account)
        rotate_log(home.log("redis"))
    except BaseException:
        os.close(lock)
        raise
    argv = [str(program.path), str(home.redis_data / "redis.conf")]
    return processes.launch(argv, log=home.log("redis"), lock=lock, **identity(home.account))


def is_ready(home: Home, settings: Settings, _process: Process) -> bool:
    """Say whether the server answers; while it reads its data it does not. Asked on the socket only it can own."""
    question = f"AUTH {settings.redis_password}\r\nPING\r\n".encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(home.sockets / "redis.sock"))
            connection.sendall(question)
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(256)):
                answer += part
        except OSError:
            return False
    return answer.endswith(b"+PONG\r\n")


def unrecorded(home: Home) -> Process | None:
    """Find a running server of ours that no record names."""
    return processes.unrecorded(home.redis_data / "redis.pid", home.redis_data)


def remove_data(home: Home) -> None:
    """Forget everything that was stored. The server must be down."""
    shutil.rmtree(home.redis_data, ignore_errors=True)


def _configuration(home: Home, settings: Settings) -> str:
    return CONFIGURATION.format(
        port=settings.redis_port,
        sockets=_quoted(str(home.sockets)),
        data=_quoted(str(home.redis_data)),
        password=settings.redis_password,
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
