"""The reference of the language: every block has a page, and every example does what the page says (§3, §4, §16)."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from orchestrator.core.states import StepState
from sequences.blocks import Step
from sequences.document import parse_definition, to_document
from sequences.language_schema import language_schema
from sequences.shorthand import normalize
from sequences.validation import validate
from tests.support.drive import Flow, PureWorld

PAGES = Path(__file__).resolve().parents[3] / "docs" / "language"
_EXAMPLE = re.compile(r"```json sequence\n(.*?)```\s+```json run\n(.*?)```", re.DOTALL)
_TURNS = 100


def examples() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for page in sorted(PAGES.glob("*.md")):
        for number, (document, run) in enumerate(_EXAMPLE.findall(page.read_text())):
            yield f"{page.stem}-{number}", json.loads(document), json.loads(run)


EXAMPLES = list(examples())


def canonical(document: dict[str, Any]) -> Any:
    normal = normalize(document, tenant_id="t", now=datetime(2026, 1, 1, tzinfo=UTC), new_id=UUID(int=1))
    return parse_definition(normal)


def play(document: dict[str, Any], run: dict[str, Any]) -> Flow:
    """Run an example as its page says: workers answer, then people, then time passes."""
    world = PureWorld()
    for name, blocks in run.get("children", {}).items():
        world.define(name, blocks)
    flow = world.start(to_document(canonical(document))["blocks"], data=run.get("data"))
    workers = {name: list(answers) for name, answers in run.get("workers", {}).items()}
    for signal in run.get("signals_first", []):
        flow.signal(signal["signal_type"], signal.get("payload"))
    signals = list(run.get("signals", []))
    for _ in range(_TURNS):
        before = len(world.executed)
        for each in (flow, *flow.children()):
            each.run()
        if len(world.executed) > before:
            continue
        if flow.instance.state.is_terminal:
            return flow
        if not _do_task(flow, workers):
            if signals and flow.state == "waiting":
                flow.signal(signals[0]["signal_type"], signals.pop(0).get("payload"))
            elif not flow.pass_time():
                return flow
    raise AssertionError("the example does not end")


def _do_task(flow: Flow, workers: dict[str, list[dict[str, Any]]]) -> bool:
    """Answer one task that is ready; False if there is none."""
    for step in flow.steps():
        if step.state is StepState.READY and workers.get(step.handler):
            answer = workers[step.handler].pop(0)
            if "fail" in answer:
                flow.fail(step.key.block_id, retryable=True, message=answer["fail"])
            else:
                flow.complete(step.key.block_id, answer["output"])
            return True
    return False


@pytest.mark.parametrize(("document", "run"), [each[1:] for each in EXAMPLES], ids=[each[0] for each in EXAMPLES])
def test_s3_examples_of_the_reference_do_what_they_say(document: dict[str, Any], run: dict[str, Any]) -> None:
    report = validate(canonical(document))
    assert report.problems == ()
    flow = play(document, run)
    assert flow.state == run["state"]
    rows = [[row.block_id, row.output] for row in flow.rows() if row.block_id in run.get("only", [row.block_id])]
    assert rows == run["rows"]
    if "tree" in run:
        assert flow.tree() == run["tree"]


def test_s3_every_block_has_a_page_with_an_example() -> None:
    tags = set(language_schema()["$defs"]["Block"]["properties"]["type"]["enum"]) - {"ab_split"}
    assert len(tags) == 11
    for tag in tags:
        text = (PAGES / f"{tag}.md").read_text()
        assert f"]({tag}.md)" in (PAGES / "README.md").read_text()
        for part in ("**Rules.**", "**Rows.**", "**Tree.**", "**Failure.**", "```json sequence"):
            assert part in text, (tag, part)


def test_s3_every_member_of_every_block_is_named_on_its_page() -> None:
    for name, node in language_schema("canonical")["$defs"].items():
        tag = node.get("properties", {}).get("type", {})
        if name != "Step" and ("const" in tag or "ab_split" in tag.get("enum", ())):
            text = (PAGES / f"{tag.get('const', 'a_b_split')}.md").read_text()
            missing = [
                member for member in node["properties"] if member not in {"type", "id"} and f"`{member}`" not in text
            ]
            assert missing == [], name


def test_s4_every_field_of_a_step_is_explained() -> None:
    text = (PAGES / "step-fields.md").read_text() + (PAGES / "step.md").read_text()
    assert [name for name in Step.model_fields if f"`{name}`" not in text] == []
