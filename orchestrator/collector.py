"""Python's cyclic garbage collector in processes that serve for long.

Reference counts free nearly everything of ours as soon as it is done with; the collector is for what is left in
cycles. Left as it is, it looks after every 700 new objects, while one request alone may hold more, and now and then
goes through all that was imported, which lives as long as the process.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 50_000
"""So many more than at the last look must be there before the youngest are looked at: some megabytes."""


def calm_collector() -> None:
    """Leave alone what is there now, and look less often at what comes; called once a process has all it needs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)


@contextmanager
def importing() -> Iterator[None]:
    """Collect nothing while a process imports what it will need for as long as it lives, nor look at that later.

    A quarter of the time of the imports goes into looking for garbage of which there is next to none.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
