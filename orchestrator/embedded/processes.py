"""Processes that are not ours to `wait()` for: name them, signal them, notice their end.

A pid alone names nothing: the kernel gives it to somebody else later. A `Process` is a pid with the moment it began,
so a record written before a crash can be checked after it, and a signal never reaches a stranger.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigurationError

POLL_SECONDS = 0.005
"""How often a state is looked at that nothing announces; a start takes some hundred of these."""


StopSteps = tuple[tuple[signal.Signals, float], ...]
"""Signals to send one after the other, each with the seconds it is given to work."""


class ServersError(ConfigurationError):
    """The embedded servers cannot do what was asked; the message says what to change, and it is for the user."""


class PortTakenError(ServersError):
    """Another program listens on the port; choose another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process for ever: `started` is opaque, equal only for the same process of the same boot."""

    pid: int
    started: str

    @property
    def is_alive(self) -> bool:
        """Say whether this very process still runs; one that only waits to be reaped does not."""
        return identify(self.pid) == self


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that are left, never below zero."""
        return max(0.0, self.at - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Say whether nothing is left."""
        return self.left == 0.0


def identify(pid: int) -> Process | None:
    """Name the process that has this pid now; None if there is none, or only its corpse."""
    started = _started_linux(pid) if sys.platform == "linux" else _started_elsewhere(pid)
    return None if started is None else Process(pid=pid, started=started)


def this_process() -> Process:
    """Name the calling process."""
    me = identify(os.getpid())
    if me is None:
        raise ServersError("cannot read the start time of this process; is /proc mounted?")
    return me


def _started_linux(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold spaces and parentheses
    state, ticks = fields[0], fields[19]  # man 5 proc_pid_stat: fields 3 and 22
    return None if state in "ZX" else f"{_boot_id()}/{ticks}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "boot"


def _started_elsewhere(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it has ended.

    A paused process is continued as well: a server under SIGSTOP would never hear that it should stop.
    """
    if not process.is_alive:
        return False
    try:
        os.kill(process.pid, number)
        if number is not signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(process: Process, deadline: Deadline) -> bool:
    """Wait until the process, of whomever it is a child, has ended; False if the deadline came first."""
    with _end_event(process) as event:
        while process.is_alive:
            if deadline.is_over:
                return False
            if event is None:
                time.sleep(min(POLL_SECONDS, deadline.left))
            else:
                select.select([event], [], [], deadline.left)
    return True


@contextlib.contextmanager
def _end_event(process: Process) -> Iterator[int | None]:
    """Yield a descriptor that becomes readable when the process ends; None where the system has no such thing."""
    event: int | None = None
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an old kernel, a sandbox that forbids it, or the process is gone
            event = os.pidfd_open(process.pid)
    try:
        yield event
    finally:
        if event is not None:
            os.close(event)


def end(process: Process, steps: StopSteps) -> None:
    """End a process: each signal in turn gets its seconds, and the next one follows only if it did not help.

    Raises:
        ServersError: it outlived them all, which SIGKILL allows only to a process stuck in the kernel.
    """
    for number, seconds in steps:
        if not send(process, number) or wait_for_end(process, Deadline.after(seconds)):
            return
    raise ServersError(f"process {process.pid} did not end; it may be waiting for a disk that does not answer")


def try_lock(path: Path) -> int | None:
    """Take the file's lock and return the descriptor that holds it; None if somebody else has it.

    `flock` belongs to the open file, not to a process: handed to a child (`pass_fds`) it lives until the last process
    that inherited it has ended, so it cannot be stale, and it is seen from other containers on the same machine.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock(path: Path, deadline: Deadline) -> int | None:
    """Take the file's lock as soon as it is free; None if the deadline came first."""
    while (descriptor := try_lock(path)) is None:
        if deadline.is_over:
            return None
        time.sleep(POLL_SECONDS)
    return descriptor


@contextlib.contextmanager
def locked(path: Path, deadline: Deadline) -> Iterator[None]:
    """Hold the file's lock for the block; `ServersError` if another process keeps it past the deadline."""
    descriptor = lock(path, deadline)
    if descriptor is None:
        raise ServersError(f"another process has been starting or stopping the servers for too long (lock {path})")
    try:
        yield
    finally:
        os.close(descriptor)


_children: list[subprocess.Popen[bytes]] = []
"""Servers this process launched, kept so that they are reaped and not reported as forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A server on its way up: `process` names it, and its log from `log_start` (bytes) on tells how it went."""

    process: Process
    child: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def wait_until(self, is_ready: Callable[[], bool], deadline: Deadline) -> None:
        """Wait until the server is ready.

        Raises:
            PortTakenError: it ended because another program has its port.
            ServersError: it ended for another reason, or the deadline came first; the message quotes its log.
        """
        while not is_ready():
            if self.child.poll() is not None:
                raise self._failure(f"ended with status {self.child.returncode} instead of starting")
            if deadline.is_over:
                raise self._failure("did not become ready in time")
            time.sleep(POLL_SECONDS)

    def _failure(self, what: str) -> ServersError:
        return failure(what, self.log, self.log_start)


def failure(what: str, log: Path, log_start: int) -> ServersError:
    """Make the error of a server that has not come up; it quotes what its log says from a place (bytes) on."""
    with log.open("rb") as file:
        file.seek(log_start)
        said = file.read().decode(errors="replace")
    kind = PortTakenError if "Address already in use" in said else ServersError
    last = "\n".join(said.splitlines()[-6:])
    return kind(f"{log.stem} {what}; its log {log} ends with:\n{last}")


def launch(argv: list[str], *, log: Path, lock: int | None = None, **options: Any) -> Launched:
    """Start a server in a session of its own, so that a Ctrl-C meant for us does not reach it.

    Args:
        argv: Program and arguments.
        log: Gets what it prints.
        lock: Descriptor of a taken lock; the server inherits it, and it is closed here.
        options: For `subprocess.Popen`: the account, the environment.
    """
    reap()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    log_start = os.fstat(output).st_size
    try:
        child = subprocess.Popen(  # noqa: S603 - a program of the wheel or of PATH
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=() if lock is None else (lock,),
            start_new_session=True,
            **options,
        )
    except OSError as problem:
        raise ServersError(f"cannot start {argv[0]!r}: {problem.strerror}") from problem
    finally:
        os.close(output)
        if lock is not None:
            os.close(lock)
    _children.append(child)
    process = identify(child.pid)
    if process is None:
        raise failure(f"ended with status {child.wait()} at once", log, log_start)
    return Launched(process=process, child=child, log=log, log_start=log_start)


def python_environment() -> dict[str, str]:
    """Return an environment in which another Python finds this package, wherever that one is started."""
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (package_root, os.environ.get("PYTHONPATH")) if part)
    return dict(os.environ) | {"PYTHONPATH": path}


def reap() -> None:
    """Forget the servers of this process that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def unrecorded(pid_file: Path, data: Path) -> Process | None:
    """Find the server that a pid file names, if it really works in that data folder.

    Closes a window of microseconds: whoever started it was killed before its pid was recorded. Linux only.
    """
    try:
        process = identify(int(pid_file.read_text().split("\n", 1)[0]))
        folder = Path(f"/proc/{process.pid}/cwd").resolve(strict=True) if process else None
    except (OSError, ValueError):
        return None
    return process if folder == data.resolve() else None
