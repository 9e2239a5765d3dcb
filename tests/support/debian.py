"""Programs of Debian's packages, unpacked into `build/` without being installed, which needs no root."""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build"
DOWNLOAD_SECONDS = 120


def unpacked(name: str, packages: Sequence[str]) -> Path:
    """Give the folder with what packages contain; fetched by the first who asks.

    The test is skipped, with the reason, where there is no apt-get or where it fetches nothing.
    """
    folder = BUILD / name
    if folder.exists():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"{name} is not installed, and this is no Debian to fetch it from")
    fresh = folder.with_name(f"{name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _fetch(fresh, packages)
        for package in fresh.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, fresh], check=True, capture_output=True)
        fresh.rename(folder)
    except (subprocess.SubprocessError, OSError) as error:
        if not folder.exists():  # or another process has been faster
            said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
            pytest.skip(f"{name} is not installed, and apt-get cannot fetch it: {said or error}")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def libraries(folder: Path) -> str:
    """Give the folders of unpacked shared libraries, as LD_LIBRARY_PATH takes them."""
    return os.pathsep.join(sorted({str(library.parent) for library in folder.glob("usr/lib/**/*.so.*")}))


def free_port() -> int:
    """Give a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fetch(directory: Path, packages: Sequence[str]) -> None:
    """Download packages; with lists of what there is of our own when the machine has none."""
    try:
        _apt_get(directory, "download", *packages)
    except subprocess.CalledProcessError:
        for folder in ("lists/partial", "cache/archives/partial"):
            (directory / "own" / folder).mkdir(parents=True)
        own = ["-o", f"Dir::State::Lists={directory}/own/lists", "-o", f"Dir::Cache={directory}/own/cache"]
        _apt_get(directory, *own, "update")
        _apt_get(directory, *own, "download", *packages)
        shutil.rmtree(directory / "own")


def _apt_get(directory: Path, *arguments: str) -> None:
    subprocess.run(
        ["apt-get", "-q", *arguments], cwd=directory, check=True, capture_output=True, timeout=DOWNLOAD_SECONDS
    )
