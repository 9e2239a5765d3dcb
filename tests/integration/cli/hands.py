"""What tests of the command line start, and what commands have said."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from orchestrator.core.outcomes import Completed, Outcome
from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish
from orchestrator.store.claiming import Worker

WORKER = Worker(id=uuid4(), name="hands", slot=1)
GREET = {"id": "greet", "blocks": [{"handler": "noop"}, {"handler": "charge", "queue_name": "gpu"}]}
ASK = {
    "id": "ask",
    "blocks": [{"id": "review", "handler": "noop", "wait_for_input": {"prompt": "Send it?"}}],
}


@dataclass(frozen=True)
class Said:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


def work(engine: Engine, queue: str, outcome: Outcome | None = None) -> None:
    claims = engine.claim(WORKER, Wish(queue=queue, handlers=["noop", "charge"]))
    assert claims
    engine.finish([Report(claim=claim, outcome=outcome or Completed(output={"n": 1})) for claim in claims])
