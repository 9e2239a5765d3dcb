"""Versions of workers, as they are compared (Semantic Versioning 2.0.0 §11, without the order among pre-releases)."""

import re
from typing import Final

_PARTS: Final = 6
_VERSION: Final = re.compile(r"v?(\d{1,18}(?:\.\d{1,18}){0,5})(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


def rank_of(version: str) -> tuple[int, ...] | None:
    """Give what a version is compared by; None for text that is no version.

    >>> rank_of("1.10") > rank_of("1.9.3") > rank_of("1.9.3-rc.1"), rank_of("2") == rank_of("v2.0.0+build")
    (True, True)
    >>> rank_of("newest") is None
    True
    """
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        return None
    numbers = [int(part) for part in found[1].split(".")]
    return (*numbers, *[0] * (_PARTS - len(numbers)), 0 if found[2] else 1)
