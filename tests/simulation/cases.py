"""What a seed decides: a program, the processes that run it, what people do to it, and what may go wrong."""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Any, Final

from tests.simulation.programs import Program, program_of

SEEDS_PER_PROGRAM: Final = 8
"""Neighbouring seeds share a program: what it gives when nothing goes wrong has to be found out only once."""

FAULTS: Final = {
    # What the network and the broker do to hints.
    "hint_lost": 0.3,
    "hint_twice": 0.3,
    "hint_late": 0.3,
    "broker_emptied": 0.02,
    "broker_away": 0.02,
    # What the store does.
    "store_away": 0.02,
    "commit_refused": 0.05,
    "answer_lost": 0.08,
    "deadlock": 0.04,
    "store_crashes": 0.08,
    # What happens to processes: at a boundary of a transaction, or inside of one.
    "killed": 0.02,
    "killed_in_commit": 0.03,
    "killed_after_commit": 0.03,
    "child_killed": 0.02,
    "paused": 0.02,
    # What a worker and its clients do.
    "batch_broken_up": 0.4,
    "report_repeated": 0.1,
    "request_repeated": 0.5,
}
"""Each kind of fault with how probable it is wherever it can happen, at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a client does to an instance besides answering gates.

    Attributes:
        at: Seconds after the beginning.
        what: `cancel`, `pause`, `resume` or `update`.
    """

    at: float
    what: str
    instance: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One history to be played; all of it is JSON.

    Attributes:
        schedule: Seed of the interleaving and of when faults happen.
        slots: Children of each worker.
        faults: How probable each kind is; one that is not named does not happen.
        most_faults: Faults, not counting those that are everyday, after which nothing goes wrong any more.
        heals_at: Seconds after which nothing goes wrong any more.
        spared: Faults by number, in the order they would happen, that do not.
    """

    program: Program
    schedule: int = 0
    workers: int = 2
    slots: int = 2
    services: int = 1
    batch: int = 32
    carry_on: int = 100
    faults: dict[str, float] = field(default_factory=dict)
    most_faults: int = 10
    heals_at: float = 40.0
    acts: tuple[Act, ...] = ()
    spared: tuple[int, ...] = ()

    @property
    def is_calm(self) -> bool:
        """Nothing goes wrong."""
        return not self.faults

    @property
    def is_comparable(self) -> bool:
        """Whether its outputs must be those of the run in which nothing goes wrong."""
        return self.program.is_certain and not any(act.what == "cancel" for act in self.acts)

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, text: str) -> "Case":
        """Read what `text` has written."""
        given: dict[str, Any] = json.loads(text)
        given["program"] = Program(**given["program"])
        given["acts"] = tuple(Act(**act) for act in given["acts"])
        given["spared"] = tuple(given["spared"])
        return cls(**given)


def case_of(seed: int) -> Case:
    """Make the case of a seed."""
    program = _program(seed // SEEDS_PER_PROGRAM)
    random = Random(f"case {seed}")
    # Few kinds of faults, so that one is seen without the others, or most of them.
    share = _pick(random, [0.15, 0.4, 0.8])
    kinds = [kind for kind in FAULTS if random.random() < share]
    return Case(
        program=program,
        schedule=seed,
        workers=_pick(random, [1, 2, 2, 2]),
        slots=_pick(random, [1, 2, 2, 3]),
        services=_pick(random, [1, 1, 2]),
        batch=_pick(random, [1, 4, 32]),
        carry_on=_pick(random, [1, 3, 100]),
        faults={kind: round(FAULTS[kind] * (0.3 + 0.7 * random.random()), 4) for kind in kinds},
        most_faults=_pick(random, [2, 5, 10]),
        acts=_acts(random, program),
    )


@lru_cache(maxsize=64)
def _program(seed: int) -> Program:
    return program_of(seed)


def _acts(random: Random, program: Program) -> tuple[Act, ...]:
    found: list[Act] = []
    for number in range(program.instances):
        chance = random.random()
        at = round(random.random() * 4, 3)
        if chance < 0.12:
            found.append(Act(at=at, what="cancel", instance=number))
        elif chance < 0.3:
            later = round(at + random.random() * 3, 3)
            found += [Act(at=at, what="pause", instance=number), Act(at=later, what="resume", instance=number)]
    return tuple(found)


def calm(case: Case) -> Case:
    """Give the same program with one of each process, and nothing that goes wrong."""
    return replace(case, schedule=0, workers=1, slots=1, services=1, faults={}, acts=(), spared=(), batch=32)


def _pick(random: Random, values: Any) -> Any:
    return values[int(random.random() * len(values))]
