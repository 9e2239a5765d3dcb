"""Drives instances by hand: claim, run the handler, report, let time pass, crash. No Celery, no sleeping.

Two worlds with one face. `StoredWorld` is the real engine over a real PostgreSQL; `PureWorld` is the pure core over
slices in memory, under a clock of its own. A test written against `World` holds for both.
"""

from datetime import timedelta

from orchestrator.core.outcomes import Completed, Failed
from tests.support.drive.blocks import (
    RETRY,
    ext,
    fail,
    for_each,
    gate,
    loop,
    parallel,
    race,
    router,
    saga,
    say,
    scope,
    split,
    step,
    sub_sequence,
    try_catch,
)
from tests.support.drive.flow import START, Flow, World, definition_of
from tests.support.drive.pure import PureWorld
from tests.support.drive.remembered import MemoryWorld
from tests.support.drive.stored import StoredWorld

__all__ = [
    "RETRY",
    "START",
    "Completed",
    "Failed",
    "Flow",
    "MemoryWorld",
    "PureWorld",
    "StoredWorld",
    "World",
    "definition_of",
    "ext",
    "fail",
    "for_each",
    "gate",
    "loop",
    "parallel",
    "race",
    "router",
    "saga",
    "say",
    "scope",
    "split",
    "step",
    "sub_sequence",
    "timedelta",
    "try_catch",
]
