"""Findings: references whose value may be missing, null or of no known type (§15.1)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from sequences.blocks import SequenceDefinition, Step, walk
from sequences.dataflow.reading import Consumer, Reference, consumers
from sequences.dataflow.shapes import (
    UNKNOWN,
    Array,
    Constants,
    Object,
    Scalar,
    Shape,
    ShapeReader,
    Unknown,
    alternatives,
    is_nullable,
)

Severity = Literal["warning", "error"]

_SUMMARIES: Final = {
    "MISSING_PRODUCER": "no block of this sequence is called {producer!r}",
    "TYPE_UNKNOWN": "no schema says what this is",
    "SCHEMA_PATH_MISSING": "the schema rules this path out",
    "VALUE_MAY_BE_ABSENT": "the value may be absent and there is no fallback",
    "VALUE_MAY_BE_NULL": "the value may be null and there is no fallback",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that may go wrong when a block reads a value; findings are ordered as they are reported."""

    consumer: str
    code: str
    reference: str
    severity: Severity = field(compare=False)
    summary: str = field(compare=False)

    def document(self) -> dict[str, Any]:
        """Write the finding."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about a definition."""

    findings: tuple[Finding, ...]
    references_checked: int

    def document(self) -> dict[str, Any]:
        """Write the report."""
        return {
            "findings": [finding.document() for finding in self.findings],
            "references_checked": self.references_checked,
        }


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes of a definition: of `context.data`, and of each block's output; None for a block without a schema."""

    input: Shape | None
    outputs: Mapping[str, Shape | None]

    @classmethod
    def of(cls, definition: SequenceDefinition) -> "Shapes":
        """Read all schemas of a definition; raises `DataflowLimit`."""
        reader = ShapeReader()
        data = None if definition.input_schema is None else reader.read(definition.input_schema, "input_schema")
        outputs: dict[str, Shape | None] = {}
        for block in walk(definition.blocks):
            schema = block.output_schema if isinstance(block, Step) else None
            name = f"output_schema of block `{block.id}`"
            outputs[block.id] = None if schema is None else reader.read(schema, name)
        return cls(data, outputs)


def report_on(definition: SequenceDefinition, shapes: Shapes | None = None) -> Report:
    """Check every reference of a definition.

    Raises:
        DataflowLimit: A schema is too deep or too large.
    """
    known = Shapes.of(definition) if shapes is None else shapes
    findings: set[Finding] = set()
    checked = 0
    for consumer in consumers(definition):
        checked += len(consumer.references)
        for reference in consumer.references:
            findings |= {_finding(consumer, reference, code) for code in _codes(reference, consumer, known)}
    return Report(tuple(sorted(findings)), checked)


def _finding(consumer: Consumer, reference: Reference, code: str) -> Finding:
    return Finding(
        consumer=consumer.block.id,
        code=code,
        reference=reference.text,
        severity="warning" if code == "TYPE_UNKNOWN" else "error",
        summary=f"`{reference.text}`: {_SUMMARIES[code].format(producer=reference.segments[0])}",
    )


def _codes(reference: Reference, consumer: Consumer, known: Shapes) -> Iterator[str]:
    first, *rest = reference.segments
    match reference.root:
        case "outputs" if first not in known.outputs:
            yield "MISSING_PRODUCER"
        case "outputs" if (shape := known.outputs[first]) is not None:
            yield from _codes_of_path(shape, _without_alias(shape, tuple(rest)), reference)
        case "data" if known.input is not None and first not in consumer.bound | {"_error"}:
            yield from _codes_of_path(known.input, reference.segments, reference)
        case _:
            yield "TYPE_UNKNOWN"


def _without_alias(shape: Shape, path: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out `.output`, which stands for the row itself unless the row has a member of that name (§6.3)."""
    is_alias = path[:1] == ("output",) and not any(
        isinstance(each, Object) and each.member("output") for each in alternatives(shape)
    )
    return path[1:] if is_alias else path


def _codes_of_path(shape: Shape, path: tuple[str, ...], reference: Reference) -> Iterator[str]:
    """Follow a path through all shapes a value may have at once."""
    current = alternatives(shape)
    may_be_absent = may_be_null = False
    for segment in path:
        found: list[Shape] = []
        for each in current:
            if isinstance(each, Unknown):
                found.append(each)
            elif each == Scalar("null") or (isinstance(each, Constants) and each.has_null):
                may_be_null = True
            elif (step := _into(each, segment)) is not None:
                found.extend(alternatives(step[0]))
                may_be_absent |= step[1]
            else:
                may_be_absent = True
        if not found:
            yield "SCHEMA_PATH_MISSING"
            return
        current = tuple({id(each): each for each in found}.values())
    if UNKNOWN in current:
        yield "TYPE_UNKNOWN"
    if not reference.has_fallback:
        if may_be_absent:
            yield "VALUE_MAY_BE_ABSENT"
        if may_be_null or any(is_nullable(each) for each in current):
            yield "VALUE_MAY_BE_NULL"


def _into(shape: Shape, segment: str) -> tuple[Shape, bool] | None:
    """Take one step of a path: what it leads to and whether that may be absent; None if it leads nowhere."""
    match shape:
        case Object():
            member = shape.member(segment)
            if member is not None:
                return member.shape, not member.is_required
            if shape.others is None:
                return None
            return shape.others, shape.others != UNKNOWN
        case Array() if segment.isdecimal() and len(segment) < 10:
            index = int(segment)
            inside = shape.first[index] if index < len(shape.first) else shape.items
            return None if inside is None else (inside, index >= shape.at_least)
        case _:
            return None
