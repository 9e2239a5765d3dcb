"""What works on the flows that a client has started."""

from uuid import uuid4

from orchestrator.client import Patience
from orchestrator.core.outcomes import Completed, Outcome
from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish
from orchestrator.store.claiming import Worker

QUICK = Patience(tries=4, first=0.001, longest=0.002)
WORKER = Worker(id=uuid4(), name="hands", slot=1)


def work(engine: Engine, outcome: Outcome | None = None, queue: str = "default") -> int:
    """Run the ready steps of a queue once; returns how many."""
    claims = engine.claim(WORKER, Wish(queue=queue, handlers=["noop", "charge", "human_review"]))
    reports = [Report(claim=claim, outcome=outcome or Completed(output={"n": 1})) for claim in claims]
    if reports:
        engine.finish(reports)
    return len(reports)


def work_off(engine: Engine) -> None:
    while work(engine):
        pass
