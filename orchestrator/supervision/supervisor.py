"""A supervisor of child processes: start, wait until ready, restart what dies, end all of it.

    with Supervisor([ChildSpec(name="api", argv=("python", "-m", "app"), ready=lambda: answers(url))]) as children:
        children.wait_ready(timeout=10)
        children.kill("api")            # it is started again

Each child leads a session of its own, so a Ctrl-C in the terminal reaches the supervisor alone, which then ends the
children in its own way. A child is ended with its whole group: the pool processes of a killed worker do not linger.
If the supervisor itself is killed, its guard ends the children (`guard.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO

from orchestrator.embedded import processes
from orchestrator.embedded.processes import Deadline
from orchestrator.supervision.printing import LinePrinter

POLL_SECONDS = 0.02
LINE_LIMIT = 64 * 1024
"""Bytes after which a line without an end is printed in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One process to keep running.

    Attributes:
        name: How it is called in the log and in calls.
        argv: Program and arguments.
        env: Variables on top of the supervisor's.
        ready: Asked until it says True; None for a child that is ready as soon as it runs. Must not block for long.
        ready_text: A line that contains this has to be printed first; None for a child that says nothing.
        stop_signal: What asks it to finish.
        stop_seconds: How long it may take before its group is killed.
        fatal_status: An exit status that says that starting it again is of no use; None for none.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    ready_text: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 8.0
    fatal_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a child that died waits, in seconds: doubling, and from the start again once it has run a while."""

    first: float = 0.5
    longest: float = 15.0
    forgiven_after: float = 30.0

    def delay(self, deaths: int) -> float:
        """Return the wait after so many deaths in a row, at least one.

        >>> [Backoff().delay(deaths) for deaths in (1, 2, 3, 5000)]
        [0.5, 1.0, 2.0, 15.0]
        """
        return float(min(self.longest, self.first * 2.0 ** min(deaths - 1, 30)))


class _Child:
    """One child over its lives. Changed under the supervisor's lock only."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.reader: threading.Thread | None = None
        self.is_wanted = False
        self.is_ready = False
        self.has_said_so = False
        self.started_at = 0.0
        self.next_start_at = 0.0
        self.deaths = 0
        self.starts = 0


class Supervisor:
    """Keeps children running from `start` to `stop`, once.

    Args:
        specs: The children, in the order of their start.
        env: Environment of all of them; None for ours.
        printer: Where their lines go; None for standard output.
        backoff: Pace of restarts.
        restart: Start a child again when it dies.
        name: The supervisor's own name in the log.
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        *,
        env: Mapping[str, str] | None = None,
        printer: LinePrinter | None = None,
        backoff: Backoff | None = None,
        restart: bool = True,
        name: str = "dev",
    ) -> None:
        self._children = {spec.name: _Child(spec) for spec in specs}
        self._env = dict(os.environ if env is None else env) | {"PYTHONUNBUFFERED": "1"}
        self._printer = printer or LinePrinter((name, *self._children), sys.stdout)
        self._name = name
        self._backoff = backoff or Backoff()
        self._restart = restart
        self._lock = threading.RLock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._is_ending = threading.Event()
        self._is_hard = False
        self._given_up: str | None = None

    def __enter__(self) -> Supervisor:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the children."""
        return tuple(self._children)

    @property
    def given_up(self) -> str | None:
        """Name a child that said it cannot run and was left down; None if all can."""
        return self._given_up

    def start(self) -> None:
        """Start the children and the watch over them.

        Raises:
            OSError: a program does not exist.
        """
        self._guard = _launch_guard()
        for name in self._children:
            self.start_child(name)
        self._watcher = threading.Thread(target=self._watch, name="watch-children", daemon=True)
        self._watcher.start()

    def wait_ready(self, timeout: float, *, give_up: Callable[[], bool] = lambda: False) -> tuple[str, ...]:
        """Wait until every wanted child is ready.

        Args:
            timeout: Seconds.
            give_up: Asked now and then; True ends the waiting.

        Returns:
            Names of those that are not ready; empty is success.
        """
        deadline = Deadline.after(timeout)
        while (waiting := self._not_ready()) and not deadline.is_over and not give_up():
            time.sleep(POLL_SECONDS)
        return waiting

    def stop(self) -> None:
        """End all children, at the same time, and wait for them; twice is fine.

        Each gets its stop signal and its seconds, then its group is killed. `stop_hard`, from a signal handler or
        another thread, cuts the waiting short.
        """
        self._is_ending.set()
        if self._watcher is not None:
            self._watcher.join()
        with self._lock:
            ends = [(child, self._ask_to_end(child)) for child in self._children.values()]
            for child, deadline in ends:
                self._end(child, deadline)
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None

    def stop_hard(self) -> None:
        """Let `stop` kill what has not ended yet. Safe in a signal handler, where an `Event` could deadlock."""
        self._is_hard = True

    def pid(self, name: str) -> int | None:
        """Return the pid of a child; None while it is down."""
        process = self._children[name].process
        return None if process is None or not _is_running(process) else process.pid

    def starts(self, name: str) -> int:
        """Return how often a child was started."""
        return self._children[name].starts

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a child itself, not to its group; a wanted child that dies of it is started again."""
        with self._lock:  # so that it cannot be collected, and its pid given away, in between
            pid = self.pid(name)
            if pid is not None:
                os.kill(pid, number)

    def stop_child(self, name: str) -> None:
        """End one child and leave it down."""
        with self._lock:
            child = self._children[name]
            child.is_wanted = False
            self._end(child, self._ask_to_end(child))

    def start_child(self, name: str) -> None:
        """Start one child, unless it runs."""
        with self._lock:
            child = self._children[name]
            child.is_wanted = True
            child.deaths = 0
            if child.process is None:
                self._launch(child)

    def restart(self, name: str) -> None:
        """End one child in an orderly way and start it again at once."""
        with self._lock:
            self.stop_child(name)
            self.start_child(name)

    def _not_ready(self) -> tuple[str, ...]:
        with self._lock:
            children = [child for child in self._children.values() if child.is_wanted and not child.is_ready]
        for child in children:
            if self.pid(child.spec.name) is not None and _is_ready(child):
                child.is_ready = True
        return tuple(child.spec.name for child in children if not child.is_ready)

    def _watch(self) -> None:
        """Start again what has died, until `stop`."""
        while not self._is_ending.wait(POLL_SECONDS):
            with self._lock:
                for child in self._children.values():
                    self._look_after(child)

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None and not _is_running(child.process):
            self._bury(child, now)
        if child.process is None and child.is_wanted and self._restart and now >= child.next_start_at:
            try:
                self._launch(child)
            except OSError as problem:
                child.deaths += 1
                child.next_start_at = now + self._backoff.delay(child.deaths)
                self._say(f"{child.spec.name} cannot be started: {problem}", is_bad=True)
            else:
                self._say(f"{child.spec.name} was started again")

    def _bury(self, child: _Child, now: float) -> None:
        """Note a death nobody asked for, and when to start again."""
        lived = now - child.started_at
        child.deaths = 1 if lived > self._backoff.forgiven_after else child.deaths + 1
        delay = self._backoff.delay(child.deaths)
        child.next_start_at = now + delay
        status = self._reap(child)
        if status == child.spec.fatal_status:
            child.is_wanted = False
            self._given_up = child.spec.name
        then = f"; starting it again in {delay:g} s" if self._restart and child.is_wanted else ""
        self._say(f"{child.spec.name} {_ending(status)}{then}", is_bad=True)

    def _launch(self, child: _Child) -> None:
        child.has_said_so = False
        process = subprocess.Popen(  # noqa: S603 - the caller's own programs
            child.spec.argv,
            env=self._env | dict(child.spec.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        child.process = process
        child.starts += 1
        child.started_at = time.monotonic()
        child.is_ready = False
        if named := processes.identify(process.pid):
            self._tell_guard(f"+ {named.pid} {named.started}")
        child.reader = threading.Thread(target=self._read, args=(child, process.stdout), daemon=True)
        child.reader.start()

    def _read(self, child: _Child, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(LINE_LIMIT):
                text = line.decode(errors="replace").rstrip("\r\n")
                self._printer.line(child.spec.name, text)
                if child.spec.ready_text is not None and child.spec.ready_text in text:
                    child.has_said_so = True

    def _ask_to_end(self, child: _Child) -> Deadline:
        """Send the stop signal, and return until when the child may take."""
        if child.process is not None and _is_running(child.process):
            os.kill(child.process.pid, child.spec.stop_signal)
            os.kill(child.process.pid, signal.SIGCONT)  # a paused child could not hear it
        return Deadline.after(child.spec.stop_seconds)

    def _end(self, child: _Child, deadline: Deadline) -> None:
        """Wait for a child that was asked to end; kill it when it takes too long."""
        while child.process is not None and _is_running(child.process):
            if deadline.is_over or self._is_hard:
                self._say(f"{child.spec.name} did not end in time and is killed", is_bad=True)
                break
            time.sleep(POLL_SECONDS)
        self._reap(child)

    def _reap(self, child: _Child) -> int:
        """Kill what is left of a child and its group, collect it, and return its status.

        In this order: while the leader is not collected, its number cannot name another group.
        """
        process = child.process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of corpses
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        self._tell_guard(f"- {process.pid}")
        if child.reader is not None:
            child.reader.join(timeout=1.0)  # a process that left the group may keep the pipe open
        child.process = None
        child.is_ready = False
        return status

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed the guard; the children are none the worse
                self._guard.stdin.write(line.encode() + b"\n")
                self._guard.stdin.flush()

    def _say(self, text: str, *, is_bad: bool = False) -> None:
        self._printer.line(self._name, text, is_bad=is_bad)


def _is_ready(child: _Child) -> bool:
    if child.spec.ready_text is not None and not child.has_said_so:
        return False
    return child.spec.ready is None or child.spec.ready()


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Say whether a child still runs, without collecting it (`Popen.poll` would)."""
    if process.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _ending(status: int) -> str:
    """Describe how a child ended.

    >>> _ending(3), _ending(-9)
    ('ended with status 3', 'was ended by SIGKILL')
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _launch_guard() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.supervision.guard"],
        env=processes.python_environment(),
        cwd="/",
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
