"""Installs a peer where it is needed: into a folder of its own, never into the environment of this project."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSTALL_SECONDS = 300.0


class Unavailable(Exception):
    """A peer cannot be measured here; the message says why."""


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment with packages, once; returns its Python.

    Raises:
        Unavailable: A package could not be installed.
    """
    python, mark = folder / "bin" / "python", folder / ".complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        mark.touch()
    return python.absolute()


def npm_package(folder: Path, package: str) -> Path:
    """Install a package of npm, once; returns its folder of modules. No scripts of packages are run.

    Raises:
        Unavailable: There is no npm, or the package could not be installed.
    """
    modules, mark = folder / "node_modules", folder / ".complete"
    if not mark.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise Unavailable("npm is not installed")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run([npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", package])
        mark.touch()
    return modules.absolute()


def versions_of(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Name the installed versions of packages in an environment."""
    names = [package.partition("==")[0] for package in packages]
    code = "import sys; from importlib.metadata import version; [print(version(name)) for name in sys.argv[1:]]"
    return dict(zip(names, _run([str(python), "-c", code, *names]).split(), strict=True))


def _run(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS).stdout
    except subprocess.CalledProcessError as problem:
        lines = problem.stderr.strip().splitlines() or ["no message"]
        raise Unavailable(f"{Path(command[0]).name} ended with {problem.returncode}: {lines[-1]}") from problem
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Unavailable(str(problem)) from problem
