"""Run any sequence in memory: no server, no sleeping, the engine of production.

    harness = Harness(handlers={"charge": charge})
    run = harness.run("onboarding", {"user": "ada"}, signals=[at("2d", answer("approve", "yes"))])
    run.expect("completed", outputs={"charge": {"paid": True}})

Its clock stands still while handlers run and jumps to the next thing that is due, so a campaign of two weeks takes
milliseconds. Built-in handlers that stay in the process really run; those that would call out need a part. With pytest
there is a fixture, `harness`. See docs/howto/test-a-sequence.md.
"""

from orchestrator.testing.acts import after, answer, at, before, waiting
from orchestrator.testing.coverage import Coverage
from orchestrator.testing.crashes import CrashPlan, Point, crash_at
from orchestrator.testing.documents import read_sequence
from orchestrator.testing.harness import Crashes, Harness
from orchestrator.testing.parts import NobodyPlays, dies, hangs, script, silent, takes
from orchestrator.testing.run import Row, Run
from orchestrator.testing.simulation import Endless, Execution
from workers.failures import PermanentError, RetryableError

__all__ = [
    "Coverage",
    "CrashPlan",
    "Crashes",
    "Endless",
    "Execution",
    "Harness",
    "NobodyPlays",
    "PermanentError",
    "Point",
    "RetryableError",
    "Row",
    "Run",
    "after",
    "answer",
    "at",
    "before",
    "crash_at",
    "dies",
    "hangs",
    "read_sequence",
    "script",
    "silent",
    "takes",
    "waiting",
]
