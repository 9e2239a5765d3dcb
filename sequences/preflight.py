"""Preflight: everything that can be said about a definition before it runs, as a list of checks (api.md §9).

`when_guards_valid` and `output_schemas_valid` pass for every definition that can be stored: a guard that cannot be
read is no reason to refuse one, because it fails its own step and nothing else. `conditions_readable` tells of those.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sequences.blocks import SequenceDefinition, Step, SubSequence, walk
from sequences.dataflow import DataflowLimit, report_on
from sequences.expressions import compile_expression
from sequences.inspection import places_of
from sequences.lint import lint
from sequences.schemas import SchemaError, compile_schema


class Status(StrEnum):
    """How a check ended; the worse, the later."""

    PASS = "pass"  # noqa: S105 - no password
    WARNING = "warning"
    UNKNOWN = "unknown"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One question about a definition and its answer."""

    id: str
    status: Status
    summary: str
    findings: tuple[dict[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        """Write the check; findings only if there are some."""
        written: dict[str, Any] = {"id": self.id, "status": self.status.value, "summary": self.summary}
        return {**written, "findings": list(self.findings)} if self.findings else written


def preflight(
    definition: SequenceDefinition, *, problems: Sequence[str], missing_children: Iterable[str]
) -> tuple[Check, ...]:
    """Check a definition.

    Args:
        problems: Texts of the rules it breaks; such a definition cannot be stored.
        missing_children: Names of sequences it starts and that do not exist now.
    """
    return (
        _check("definition_valid", "Every rule of the language is kept.", Status.FAIL, problems),
        Check("when_guards_valid", Status.PASS, "Every guard can be stored and evaluated when its step is reached."),
        _check("output_schemas_valid", "Every schema compiles.", Status.FAIL, _schema_problems(definition)),
        _check("conditions_readable", "Every condition can be read.", Status.WARNING, _unreadable(definition)),
        _check("no_warnings", "Nothing looks like a mistake.", Status.WARNING, () if problems else lint(definition)),
        _check("sub_sequences_found", "Every sub-sequence exists.", Status.WARNING, missing_children),
        _dataflow(definition),
    )


def overall(checks: Iterable[Check]) -> Status:
    """Return the worst status."""
    order = list(Status)
    return max((check.status for check in checks), key=order.index)


def children_of(definition: SequenceDefinition) -> tuple[tuple[str, int | None], ...]:
    """Return name and version of every sequence a definition starts, each once."""
    blocks = (block for block in walk(definition.blocks) if isinstance(block, SubSequence))
    return tuple(dict.fromkeys((block.sequence_name, block.version) for block in blocks))


def _check(check_id: str, good: str, bad: Status, texts: Iterable[str]) -> Check:
    found = tuple({"summary": text} for text in texts)
    if not found:
        return Check(check_id, Status.PASS, good)
    return Check(check_id, bad, found[0]["summary"] if len(found) == 1 else f"{len(found)} findings", found)


def _schema_problems(definition: SequenceDefinition) -> Iterator[str]:
    trees = (definition.blocks, definition.on_failure or (), definition.on_cancel or ())
    steps = (block for tree in trees for block in walk(tree) if isinstance(block, Step))
    for step in steps:
        if step.output_schema is not None:
            try:
                compile_schema(step.output_schema)
            except SchemaError as error:
                yield f"block `{step.id}`: output_schema is not a valid JSON Schema: {error}"


def _unreadable(definition: SequenceDefinition) -> Iterator[str]:
    for place in places_of(definition):
        if place.kind == "expression" and (error := compile_expression(place.text).error) is not None:
            yield f"block `{place.block_id}`: `{place.member}` cannot be read: {error}"


def _dataflow(definition: SequenceDefinition) -> Check:
    check_id = "typed_dataflow_compatible"
    try:
        report = report_on(definition)
    except DataflowLimit as error:
        return Check(check_id, Status.UNKNOWN, str(error))
    findings = tuple(finding.document() for finding in report.findings)
    if not findings:
        return Check(check_id, Status.PASS, f"All {report.references_checked} references fit the schemas.")
    is_error = any(finding.severity == "error" for finding in report.findings)
    status = Status.FAIL if is_error else Status.WARNING
    return Check(check_id, status, f"{len(findings)} findings", findings)
