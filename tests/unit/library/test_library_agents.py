"""The ready sequences with models in them: react_agent, research_agent, support_agent, self_planning.

Models and tools are played; the loop, the routing, the injection and the gates are the engine's.
"""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.testing import Harness, PermanentError, RetryableError, at, script, waiting
from sequences import library
from tests.support.library import asks, calls, moments, says

TASK = library.example_input("react_agent")
CONFIG = {"llm_key": "k-1", "search_url": "https://search.example"}
AWAY = RetryableError("model is away")


# -- react_agent -------------------------------------------------------------------------------------------------------


def test_react_agent_answers_at_once_when_the_model_needs_no_tool(harness: Harness) -> None:
    run = harness.run("react_agent", TASK, config=CONFIG)
    run.expect("completed", data={"answer": "66 steps", "saved": "66 steps"})
    assert [call.block_id for call in run.executions] == ["init", "think", "final_answer", "observe", "save"]


def test_react_agent_calls_each_tool_the_model_asks_for_and_then_answers(harness: Harness) -> None:
    thoughts = script(asks("search", '{"q": 1}'), asks("calculator"), asks("database"), says("66"))
    run = harness.run("react_agent", TASK, config=CONFIG, handlers={"llm_call": thoughts})
    run.expect("completed", data={"answer": "66"})
    acted = [call.block_id for call in calls(run, "search", "calculator", "database", "final_answer")]
    assert acted == ["search", "calculator", "database", "final_answer"]
    assert calls(run, "search")[0].params == {
        "url": "https://search.example",
        "tool_name": "search",
        "arguments": {"raw": '{"q": 1}'},
    }
    assert run.outputs["think_act"] == {"_iterations": 4}
    assert len([row for row in run.rows if row.block_id == "think"]) == 4


def test_react_agent_shows_the_model_what_it_has_observed(harness: Harness) -> None:
    thoughts = script(asks("calculator"), says("66"))
    run = harness.run("react_agent", TASK, config=CONFIG, handlers={"llm_call": thoughts})
    first, second = calls(run, "think")
    assert first.params["messages"] == [{"role": "user", "content": TASK["task"]}]
    assert second.params["messages"] == [asks("calculator")["message"]]
    assert second.params["tools"] == TASK["tools"]
    assert second.params["api_key"] == "k-1"
    assert calls(run, "observe")[0].params["iteration_outputs"]["calculator"] == {"value": 66}


def test_react_agent_gives_up_after_ten_turns_without_failing(harness: Harness) -> None:
    run = harness.run("react_agent", TASK, config=CONFIG, handlers={"llm_call": asks("calculator")})
    run.expect("completed", not_ran=["final_answer"])
    assert len(calls(run, "think")) == 10
    assert calls(run, "save")[0].params == {"answer": None}


def test_react_agent_tries_the_model_four_times_with_longer_pauses(harness: Harness) -> None:
    thoughts = script(AWAY, AWAY, AWAY, says("66"))
    run = harness.run("react_agent", TASK, config=CONFIG, handlers={"llm_call": thoughts})
    run.expect("completed", data={"answer": "66"})
    assert moments(run, "think") == [timedelta(seconds=second) for second in (0, 1, 3, 7)]


def test_react_agent_goes_on_with_the_turn_that_failed(harness: Harness) -> None:
    thoughts = script(asks("calculator"), says("66"))
    broken = {"llm_call": thoughts, "agent_observe": script({"done": False}, PermanentError("bug"), {"done": True})}
    run = harness.run("react_agent", TASK, config=CONFIG, handlers=broken)
    run.expect("failed", not_ran=["save"])
    run.retry().go()
    run.expect("completed")
    assert [len(calls(run, name)) for name in ("init", "think", "calculator", "observe")] == [1, 2, 1, 3]


# -- research_agent ----------------------------------------------------------------------------------------------------

QUESTION = library.example_input("research_agent")
APPROVED = at(waiting("human_review"), {"custom": "human_input:human_review"}, {"approved": True})


def test_research_agent_publishes_after_any_word_of_a_person(harness: Harness) -> None:
    run = harness.run("research_agent", QUESTION, signals=[at(waiting("human_review"), "custom", {"ok": 1})])
    run.expect(
        "completed",
        ran=["gather_sources", "call_llm", "analyze", "human_review", "publish_report"],
        outputs={"human_review": {"ok": 1}},
    )


def test_research_agent_waits_for_the_person_as_long_as_it_takes(harness: Harness) -> None:
    run = harness.run("research_agent", QUESTION)
    run.expect("waiting", standing={"human_review": "gate"}, not_ran=["publish_report"])


def test_research_agent_goes_on_until_the_analysis_needs_no_more(harness: Harness) -> None:
    """A turn with tool calls has no analysis; the loop asks the last one there is, and goes in without any."""
    parts = {
        "call_llm": script({"tool_calls": [{"name": "fetch"}]}, {"tool_calls": []}),
        "analyze": script({"needs_more_data": True}, {"needs_more_data": False}),
    }
    run = harness.run("research_agent", QUESTION, handlers=parts, signals=[APPROVED])
    run.expect("completed")
    turns = [call.block_id for call in calls(run, "call_llm", "execute_tools", "analyze")]
    assert turns == ["call_llm", "execute_tools", "call_llm", "analyze", "call_llm", "analyze"]


def test_research_agent_looks_for_sources_three_times_two_seconds_apart(harness: Harness) -> None:
    run = harness.run("research_agent", QUESTION, handlers={"gather_sources": RetryableError("no network")})
    run.expect("failed")
    assert moments(run, "gather_sources") == [timedelta(seconds=second) for second in (0, 2, 4)]


def test_research_agent_stops_looking_after_ten_turns(harness: Harness) -> None:
    parts = {"analyze": {"needs_more_data": True}}
    run = harness.run("research_agent", QUESTION, handlers=parts, signals=[APPROVED])
    run.expect("completed")
    assert len(calls(run, "analyze")) == 10


# -- support_agent -----------------------------------------------------------------------------------------------------

TICKET = library.example_input("support_agent")


def test_support_agent_answers_by_itself_when_it_is_sure(harness: Harness) -> None:
    run = harness.run("support_agent", TICKET, handlers={"classify_ticket": {"confidence": 0.8}})
    run.expect("completed", ran=["classify_ticket", "draft_response", "send_response"])


def test_support_agent_asks_a_person_when_it_is_not(harness: Harness) -> None:
    run = harness.run("support_agent", TICKET)
    run.expect("waiting", standing={"request_human_review": "gate"}, not_ran=["send_response"])
    run.signal({"custom": "human_input:request_human_review"}, {"approved": True, "text": "Better so."}).go()
    run.expect("completed", outputs={"request_human_review": {"approved": True, "text": "Better so."}})


def test_support_agent_sends_nothing_when_it_is_cancelled_meanwhile(harness: Harness) -> None:
    run = harness.run("support_agent", TICKET, signals=[at("30d", "cancel")])
    run.expect("cancelled", not_ran=["send_response"])


@pytest.mark.parametrize("broken", ["classify_ticket", "draft_response"])
def test_support_agent_sends_nothing_when_a_model_fails(harness: Harness, broken: str) -> None:
    run = harness.run("support_agent", TICKET, handlers={broken: AWAY})
    run.expect("failed", not_ran=["send_response"])


# -- self_planning -----------------------------------------------------------------------------------------------------

PLAN = [
    {"type": "step", "id": "read", "handler": "llm_call", "params": {"messages": "{{ data.task }}"}},
    {
        "type": "parallel",
        "id": "compare",
        "branches": [
            [{"type": "step", "id": "rows", "handler": "noop"}],
            [{"type": "step", "id": "columns", "handler": "noop"}],
        ],
    },
]
WANTED = library.example_input("self_planning")


def plays(harness: Harness, blocks: Any) -> Any:
    def model(ctx: Any, params: Any) -> dict[str, Any]:
        return {**says("ok"), **({"blocks": blocks} if ctx.block_id == "plan" else {})}

    return harness.run("self_planning", WANTED, handlers={"llm_call": model})


def test_self_planning_runs_the_planned_blocks_before_its_summary(harness: Harness) -> None:
    run = plays(harness, PLAN)
    run.expect("completed")
    ran = [call.block_id for call in run.executions]
    assert ran == ["plan", "extend", "read", "rows", "columns", "synthesize"]
    assert calls(run, "read")[0].params == {"messages": WANTED["task"]}


def test_self_planning_gives_all_outputs_to_the_summary(harness: Harness) -> None:
    [asked] = calls(plays(harness, PLAN), "synthesize")[0].params["messages"]
    assert asked["content"].startswith("Summarise: {")
    assert '"read"' in asked["content"]


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ("nothing", "blocks"),
        ([{"type": "step", "id": "plan", "handler": "noop"}], "plan"),
        ([{"type": "leap", "id": "x"}], "leap"),
    ],
)
def test_self_planning_fails_with_a_reason_when_the_plan_is_no_plan(harness: Harness, blocks: Any, reason: str) -> None:
    run = plays(harness, blocks)
    run.expect("failed", ran=["plan", "extend"])
    assert reason in run.errors()["extend"]


def test_self_planning_plans_again_when_the_model_was_away(harness: Harness) -> None:
    run = harness.run("self_planning", WANTED, handlers={"llm_call": AWAY})
    run.expect("failed", ran=["plan"] * 3)
    assert moments(run, "plan") == [timedelta(seconds=second) for second in (0, 1, 3)]
