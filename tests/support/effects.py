"""The outside world of the test handlers: a file that every execution of a step leaves a line in.

Lines are appended by one `write` each, so any number of processes may share the file, and one that is killed leaves no
half line behind. Nothing of the engine knows of it: it is what really happened.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH_VARIABLE = "TEST_EFFECTS_FILE"
BOOT_VARIABLE = "TEST_BOOT"
"""Seconds since 1970 at which the monotonic clock stood at zero: a process with a wrong clock tells the time by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution of a handler, as the outside world saw it.

    Args:
        key: The idempotency key it was given.
        nonce: Unique to this execution; handlers that succeed return it.
        started_at: Seconds since 1970, by the clock of this machine (PostgreSQL runs on the same one).
        ended_at: None if the handler never came to its end.
        seen: What the handler read of earlier outputs.
        clock_error: By how many seconds the clock of its process was wrong.
    """

    key: str
    nonce: str
    attempt: int
    handler: str
    pid: int
    started_at: float
    ended_at: float | None = None
    result: str | None = None
    seen: Any = None
    clock_error: float = 0.0


def _now() -> float:
    boot = os.environ.get(BOOT_VARIABLE)
    return time.time() if boot is None else time.monotonic() + float(boot)


def _append(line: dict[str, Any]) -> None:
    file = os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def began(key: str, *, attempt: int, handler: str, seen: Any = None) -> str:
    """Note that an execution has begun; returns its nonce."""
    nonce = os.urandom(8).hex()
    now = _now()
    _append(
        {
            "phase": "began",
            "key": key,
            "nonce": nonce,
            "attempt": attempt,
            "handler": handler,
            "pid": os.getpid(),
            "at": now,
            "clock_error": time.time() - now,
            "seen": seen,
        }
    )
    return nonce


def ended(nonce: str, result: str = "returned") -> None:
    """Note that an execution has come to its end."""
    _append({"phase": "ended", "nonce": nonce, "at": _now(), "result": result})


class EffectLog:
    """Reads what the handlers have left."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def executions(self) -> tuple[Execution, ...]:
        """Return all executions so far, in the order they began."""
        if not self.path.exists():
            return ()
        return executions_of(
            json.loads(line) for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
        )

    def count(self, handler: str) -> int:
        """Count the executions of one handler that have begun."""
        return sum(execution.handler == handler for execution in self.executions())

    def pids(self, handler: str) -> list[int]:
        """List the processes in which one handler has begun, in order."""
        return [execution.pid for execution in self.executions() if execution.handler == handler]


def executions_of(lines: Iterable[dict[str, Any]]) -> tuple[Execution, ...]:
    """Put the lines of executions together, in the order they began."""
    lines = list(lines)
    ends = {line["nonce"]: line for line in lines if line["phase"] == "ended"}
    return tuple(
        Execution(
            key=line["key"],
            nonce=line["nonce"],
            attempt=line["attempt"],
            handler=line["handler"],
            pid=line["pid"],
            started_at=line["at"],
            ended_at=ends.get(line["nonce"], {}).get("at"),
            result=ends.get(line["nonce"], {}).get("result"),
            seen=line["seen"],
            clock_error=line["clock_error"],
        )
        for line in lines
        if line["phase"] == "began"
    )
