"""The core against the reference interpreter: random programs, with and without a crash; and each against itself."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequences.expressions import ExpressionError, compile_expression
from sequences.scope import Scope
from sequences.templates import TemplateError
from sequences.templates import render as real_render
from tests.model import campaign
from tests.model.compare import Disagreement
from tests.model.generate import COMPOSITES, Maker, programs
from tests.model.match import Match, play
from tests.model.program import Program
from tests.model.reference.handlers import Done
from tests.model.reference.values import BadExpression, BadTemplate, View, evaluate, render, same

PROGRAMS = 500
FIRST_SEED = 1_000_000
SMALL = 2
"""Blocks of the programs here, about: each is played a dozen times, and `make model` plays larger ones."""


EXPECTED = [f"block {kind}" for kind in (*COMPOSITES, "step")]
EXPECTED += [f"signal {kind}" for kind in ("cancel", "pause", "resume", "update_context")]
EXPECTED += [
    f"crash: {when} the commit of a {kind}" for when in ("before", "after") for kind in ("claim", "report", "timer")
]
EXPECTED += [f"signal {kind}" for kind in ("resume_from", "replace_context", "set_state", "fork", "inject")]
EXPECTED += ["late report", "children", "retry of a failed flow", "crash: worker the commit of a claim of a worker"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let `log` steps write nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


def test_core_agrees_with_the_reference_interpreter_under_single_crashes() -> None:
    findings = campaign.check_seeds(range(FIRST_SEED, FIRST_SEED + PROGRAMS), SMALL)
    reports = [campaign.report(seed, *wrong) for seed, wrong in findings.wrong.items()]
    assert not reports, "\n\n".join(reports[:3])
    unseen = [kind for kind in EXPECTED if not findings.seen[kind]]
    assert not unseen, f"no program had: {unseen}"


def test_s8_1_what_a_branch_beside_adds_to_the_error_is_not_read_in_the_list_that_handles_it() -> None:
    sleep = [{"type": "step", "id": f"s{ms}", "handler": "sleep", "params": {"duration_ms": ms}} for ms in (500, 1000)]
    add = {
        "type": "step",
        "id": "add",
        "handler": "transform",
        "params": {"target": "data._error.block_id", "value": 7},
    }
    see = {"type": "step", "id": "see", "handler": "log", "params": {"message": "{{ data._error.block_id }}"}}
    fail = {"type": "step", "id": "fail", "handler": "fail", "params": {"message": "no"}}
    guarded = {"type": "try_catch", "id": "t", "try_block": [fail], "catch_block": [sleep[1], see]}
    match = play(Program(blocks=[{"type": "parallel", "id": "p", "branches": [[guarded], [sleep[0], add]]}]))
    assert ("see", {"message": "t"}) in [(row.block_id, row.output) for row in match.model.rows]


def test_s5_9_every_commit_of_a_run_is_a_crash_point() -> None:
    match = play(campaign.program_of(FIRST_SEED + 1))
    points = campaign.crash_points(match.commits)
    expected = {(n, when) for n in range(1, len(match.commits) + 1) for when in ("before", "after")}
    assert expected <= {(point.commit, point.when.value) for point in points}
    assert {match.commits[p.commit - 1] for p in points if p.when == "worker"} <= {
        "claim of a worker",
        "report of a worker",
    }


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_core_agrees_with_the_reference_interpreter_on_programs_that_shrink(program: Program) -> None:
    play(program)


class _Forgetful(Match):
    """A comparison whose interpreter loses what a worker says."""

    def report(self, key) -> None:
        complete = self.model.report
        self.model.report = lambda key, _: complete(key, Done({"wrong": True}))  # type: ignore[method-assign]
        super().report(key)


def test_a_wrong_interpreter_is_found_and_the_program_made_small() -> None:
    def is_wrong(program: Program) -> bool:
        try:
            _Forgetful(program).play()
        except Disagreement:
            return True
        return False

    seed = next(seed for seed in range(1000) if is_wrong(campaign.program_of(seed)))
    smallest = campaign.shrink(campaign.program_of(seed), is_wrong)
    assert len(smallest.blocks) == 1
    assert smallest.blocks[0]["handler"] == "worker"


DATA = {"n": 3, "flag": True, "category": "A", "items": [1, "a", {"id": 2}], "input": {"text": "hi", "list": [5, 6]}}
OUTPUTS = {"s1": {"message": "m", "n": 7}, "s2": [1, 2], "s3": None, "s4": {"output": {"n": 1}}}


def _both() -> tuple[Scope, View]:
    sections = {"data": DATA, "config": {"limit": 3, "name": "cfg"}, "state": {"k": "v"}, "runtime": {"attempt": 1}}
    scope = Scope(**sections, outputs=OUTPUTS, instance_id="i", bindings={"item": {"x": 1}}, variables={"index": 2})
    return scope, View(
        {**sections, "instance_id": "i", "session": {}}, OUTPUTS.__getitem__, {"item": {"x": 1}}, {"index": 2}
    )


def _maker(random: Random) -> Maker:
    maker = Maker(random)
    maker.ids, maker.items = list(OUTPUTS), ["item"]
    return maker


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["", " )", " 1", "? 2", " #", "&& (", " + "]))
def test_s7_expressions_mean_the_same_to_both(random: Random, tail: str) -> None:
    scope, view = _both()
    text = _maker(random).condition() + tail

    def strict(evaluated) -> Any:
        try:
            return [evaluated()]
        except (ExpressionError, BadExpression):
            return "refused"

    real = compile_expression(text)
    assert same(strict(lambda: real.evaluate_strict(scope)), strict(lambda: evaluate(text, view, strict=True))), text
    if not tail:
        assert same(real.evaluate(scope), evaluate(text, view)), text


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_s6_templates_mean_the_same_to_both(random: Random) -> None:
    scope, view = _both()
    value = _maker(random).template()

    def rendered(evaluated) -> str:
        try:
            return json.dumps(evaluated())
        except (TemplateError, BadTemplate) as error:
            return f"refused: {error}"

    assert rendered(lambda: real_render(value, scope)) == rendered(lambda: render(value, view)), value
