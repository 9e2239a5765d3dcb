"""Measures in words."""

from datetime import timedelta


def age_of(age: timedelta) -> str:
    """Write a duration in whole seconds.

    >>> age_of(timedelta(seconds=61.5))
    '0:01:01'
    """
    return str(timedelta(seconds=int(age.total_seconds())))


def megabytes(size: int) -> str:
    """Write a size.

    >>> megabytes(3_500_000)
    '3 MiB'
    """
    return f"{size // (1 << 20)} MiB"
