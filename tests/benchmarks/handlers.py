"""Handlers that do nothing. Imported by the workers that are measured."""

from workers.registry import handler

BUILT_IN, PLAIN = "noop", "bench.plain"


@handler(PLAIN)
def plain(item: object = None) -> None:
    """Do nothing, as any function of a user: nobody has said that it never blocks."""
