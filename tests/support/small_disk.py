"""A small disk, in memory, that a test can fill: only root can mount one."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MNT_DETACH = 2
_PAGE = 4096


class SmallDisk:
    """A disk that is mounted at a folder; made by `mounted`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free for a block."""
        try:
            with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(_PAGE))
            yield
        finally:
            self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of some size at a folder, which is made.

    Raises:
        OSError: This account may not mount anything.
    """
    folder.mkdir(parents=True)
    libc = ctypes.CDLL(None, use_errno=True)
    size = f"size={megabytes}m".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, size) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount a disk at {folder}")
    try:
        yield SmallDisk(folder)
    finally:
        libc.umount2(os.fsencode(folder), _MNT_DETACH)
