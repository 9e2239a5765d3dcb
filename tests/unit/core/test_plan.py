"""The plan of an instance into which blocks were injected is its own, though it shares what it has not changed."""

from typing import Any

from orchestrator.core.plan import Injection, Plan
from sequences.document import parse_blocks
from tests.support.drive import definition_of, loop, step


def test_s9_10_loops_of_one_id_in_two_instances_have_each_its_own_blocks() -> None:
    plan = Plan(definition_of([loop("first", [step("a")])]))

    def with_loop(*body: Any) -> Plan:
        blocks = tuple(parse_blocks([loop("injected", body)]))
        return plan.with_injection(Injection(number=1, blocks=blocks, before=None))

    one, other = with_loop(step("x")), with_loop(step("y"), step("z"))
    assert (one.within("injected"), other.within("injected")) == (("x",), ("y", "z"))
    assert plan.within("first") == one.within("first") == ("a",)
