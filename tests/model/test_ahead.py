"""Steps that are run in the commit of the step before them leave what they leave when each has a commit of its own."""

from collections import Counter
from random import Random
from typing import Any, cast

import pytest

from tests.model.generate import Maker
from tests.model.program import Program
from tests.model.reference.places import everything_in
from tests.support.drive import MemoryWorld

BESIDE = "_interceptor:"
"""Rows that are numbered by the commit that has asked for them."""
SEEDS, MOST = 400, 16
LONG, ITEMS = 20, 120
"""Every so many-eth program has so many items: more than a slice holds at once."""
ORDERED = {"loop": 3, "for_each": 3, "router": 3, "try_catch": 5, "cancellation_scope": 2, "saga": 3}
"""Composites in which one thing happens after another: what runs ahead changes the order of nothing else."""
EFFECTLESS = {"transform": 6, "set_state": 4, "assert": 3, "noop": 2, "merge_state": 2, "fail": 2, "delete_state": 1}
HANDLERS = {**EFFECTLESS, "worker": 3, "get_state": 2, "log": 1, "sleep": 1, "self_modify": 1}
BEFORE: dict[str, Any] = {"n": 1}
"""The data of each session."""
SHARED = ("session.n", "session.k", "session.deep.x")


class Sharing(Maker):
    """Makes programs of instances with a session: steps read and write its data as they do with the instance's own."""

    def path(self) -> str:
        return str(self.pick(SHARED)) if self.chance(50) else super().path()

    def params_of_set_state(self) -> Any:
        return self.shared(super().params_of_set_state())

    def params_of_merge_state(self) -> Any:
        return self.shared(super().params_of_merge_state())

    def params_of_get_state(self) -> Any:
        return self.shared(super().params_of_get_state())

    def params_of_delete_state(self) -> Any:
        return self.shared(super().params_of_delete_state())

    def params_of_transform(self) -> Any:
        read = "{{ " + self.path() + " }}"
        return {"target": self.pick(SHARED), "value": read} if self.chance(50) else super().params_of_transform()

    def shared(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "scope": "session"} if self.chance(60) else params


def program_of(seed: int) -> Program:
    """Make a program in which everything has its order; every other one shares much with a session."""
    maker = (Sharing if seed % 2 else Maker)(Random(seed), MOST)
    maker.kinds, maker.handlers = ORDERED, HANDLERS
    program = maker.program()
    for block in everything_in([*program.blocks]):
        if block["type"] == "for_each":
            cast("dict[str, Any]", block)["concurrency"] = 1
    if seed % LONG == 0 and isinstance(program.data.get("items"), list):
        program.data["items"] = [{"id": number} for number in range(ITEMS)]
    return program


def play(program: Program, *, ahead: bool) -> tuple[dict[str, Any], int]:
    """Play a program to its end, or to where it waits for somebody; returns what it leaves, and how many commits."""
    world = MemoryWorld({"worker": lambda **params: {"n": 7, "params": params}})
    world.runs_ahead = ahead
    commits = Counter[str]()
    finish = world.finish

    def counted(reports: Any, *, carry: bool = False) -> Any:
        commits["finish"] += 1
        return finish(reports, carry=carry)

    world.finish = counted  # type: ignore[method-assign]
    session_id = world.open_session(BEFORE)
    flow = world.start(
        program.blocks,
        data=program.data,
        config=program.config,
        members=program.members,
        timezone=program.timezone,
        session_id=session_id,
    ).settle(carry=ahead)
    rows = [(row.block_id, row.iteration, row.output, row.attempt, row.ref) for row in flow.rows()]
    beside = [(row[0], repr(row[2])) for row in rows if row[0].startswith(BESIDE)]
    left = {
        "state": flow.state,
        "data": flow.data,
        "values": flow.kv,
        "session": world.session_data(session_id),
        "rows": [row for row in rows if not row[0].startswith(BESIDE)],
        "interceptors": Counter(beside),
        "tree": flow.tree(),
        "standing": flow.standing(),
    }
    flow.check()
    return left, commits["finish"]


@pytest.mark.timeout(300)
def test_what_runs_ahead_leaves_the_same() -> None:
    saved = ends = shared = 0
    for seed in range(SEEDS):
        program = program_of(seed)
        (alone, commits), (together, fewer) = (play(program, ahead=ahead) for ahead in (False, True))
        assert together == alone, f"seed {seed}\n{program.text()}"
        saved += commits - fewer
        ends += alone["state"] in {"completed", "failed"}
        shared += alone["session"] != BEFORE
    assert saved > SEEDS, "hardly anything was run ahead"
    assert ends > SEEDS / 2
    assert shared > SEEDS / 8
