"""Composites: what entering one starts, and what the end of one of its lists means (sequences contract §3).

One module for each kind, and `walk.py`, which goes from block to block. A composite keeps what it needs to settle on
its own row, in `memory`; it changes only under the instance's lock:

    parallel   open (branches), stopping (the others are being ended), failed, cancelled, error
    race       open (branches), stopping, result (once it is decided), cancelled, error
    loop       n (the iteration it is in, or comes to next), polling (it is between two iterations), held (the next
               came due in a pause), silent (blocks of the body that the condition reads and that have not completed)
    for_each   total, next (index to start), open, finished, polling (it lets go amid starting items), failed,
               cancelled, error; running (items in progress) if old rows are dropped, or from a
               migration on; while it is reopened also again (items that did not end well)
    router     choice (index of the list that runs, None for none)
    try_catch  phase, result, error, origin (the list before finally), caught (its own `_error`: others overwrite the
               shared one), rewritten (what was written over it in its lists, or from outside, since)
    a_b_split  choice (index of the variant)
    saga       at (step whose action runs or has failed), done (steps whose action completed and can be undone), caught
               and rewritten (as above), error, undo (compensations that are due, the last one first), kept (that
               failed)

A sub_sequence is no composite: it waits for a child; see `children.py`.

A list is walked without a cursor: the block that ended knows, from the plan, what follows it.
"""

from orchestrator.core.composites.walk import poll, walk

__all__ = ["poll", "walk"]
