"""Typed dataflow: findings, generated types, hashes and limits (§15.1)."""

import copy
import json
import random
from typing import Any

import pytest

from sequences.dataflow import DataflowLimit, analyse, report_on, sha256_of
from sequences.dataflow.reading import references_in
from sequences.document import parse_definition, to_document
from tests.unit.sequences.language_documents import EVERY_BLOCK, block, definition, step

PERSON = {
    "type": "object",
    "required": ["name", "tags"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "nick": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "bag": {"type": "array"},
        "open": {"type": "object"},
        "any": {},
    },
}


def findings(*blocks: dict[str, Any], **fields: Any) -> list[tuple[str, str, str]]:
    report = report_on(parse_definition(definition(*blocks, **fields)))
    return [(finding.consumer, finding.code, finding.reference) for finding in report.findings]


def codes(text: str, schema: Any = PERSON) -> list[str]:
    """Codes of one reading step after a producer with a schema."""
    made = findings(step("made", output_schema=schema), step("use", params={"x": text}))
    return [code for _, code, _ in made]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ outputs.made.name }}", []),
        ("{{ outputs.made }}", []),
        ("{{ outputs.made.output.name }}", []),
        ("{{ outputs.nobody.x }}", ["MISSING_PRODUCER"]),
        ("{{ outputs.nobody.x | y }}", ["MISSING_PRODUCER"]),
        ("{{ outputs.made.surname }}", ["SCHEMA_PATH_MISSING"]),
        ("{{ outputs.made.surname | x }}", ["SCHEMA_PATH_MISSING"]),
        ("{{ outputs.made.name.first }}", ["SCHEMA_PATH_MISSING"]),
        ("{{ outputs.made.bag.0 }}", ["SCHEMA_PATH_MISSING"]),
        ("{{ outputs.made.nick }}", ["VALUE_MAY_BE_ABSENT"]),
        ("{{ outputs.made.nick | nobody }}", []),
        ("{{ outputs.made.nick | upper }}", []),
        ("{{ outputs.made.nick || 1 }}", ["VALUE_MAY_BE_ABSENT"]),
        ("{{ outputs.made.nick }} a | b", ["VALUE_MAY_BE_ABSENT"]),
        ("{{ outputs.made.tags.0 }}", []),
        ("{{ outputs.made.tags[0] }}", []),
        ("{{ outputs.made.tags.1 }}", ["VALUE_MAY_BE_ABSENT"]),
        ("{{ outputs.made.age }}", ["VALUE_MAY_BE_ABSENT", "VALUE_MAY_BE_NULL"]),
        ("{{ outputs.made.age | 0 }}", []),
        ("{{ outputs.made.open.x }}", ["TYPE_UNKNOWN", "VALUE_MAY_BE_ABSENT"]),
        ("{{ outputs.made.open.x | 1 }}", ["TYPE_UNKNOWN"]),
        ("{{ outputs.made.any | 1 }}", ["TYPE_UNKNOWN"]),
        ("{{ data.x }}", ["TYPE_UNKNOWN"]),
        ("{{ state.x | 1 }}", ["TYPE_UNKNOWN"]),
        ("{{ config.x }}", ["TYPE_UNKNOWN"]),
        ("{{ outputs.use.x }}", ["TYPE_UNKNOWN"]),
        ("{{ context.data.x }} myoutputs.y a.data.z", []),
        ("data. and outputs.", []),
    ],
)
def test_s15_1_findings_of_one_reference(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


@pytest.mark.parametrize(
    ("schema", "path", "expected"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "", ["VALUE_MAY_BE_NULL"]),
        ({"type": "object", "required": ["x"], "properties": {"x": {"enum": [1, None]}}}, ".x", ["VALUE_MAY_BE_NULL"]),
        ({"oneOf": [PERSON, {"type": "object", "additionalProperties": False}]}, ".name", ["VALUE_MAY_BE_ABSENT"]),
        ({"allOf": [PERSON, {"required": ["nick"]}]}, ".nick", []),
        ({"$ref": "#/$defs/p", "$defs": {"p": PERSON}}, ".surname", ["SCHEMA_PATH_MISSING"]),
        ({"$defs": {"p": {"$anchor": "a", **PERSON}}, "$ref": "#a"}, ".name", []),
        ({"type": "object", "additionalProperties": {"type": "string"}}, ".x", ["VALUE_MAY_BE_ABSENT"]),
        ({"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": False}, ".x", ["TYPE_UNKNOWN"]),
        ({"type": "array", "prefixItems": [{"type": "string"}], "minItems": 1}, ".0", []),
        ({"type": "array", "prefixItems": [{"type": "string"}], "minItems": 1}, ".1", ["SCHEMA_PATH_MISSING"]),
        ({"properties": {"next": {"$ref": "#"}}, "required": ["next"]}, ".next.next", ["TYPE_UNKNOWN"]),
        ({"type": "object", "required": ["output"], "properties": {"output": {"type": "string"}}}, ".output.x",
         ["SCHEMA_PATH_MISSING"]),
    ],
)  # fmt: skip
def test_s15_1_findings_follow_what_schemas_are_made_of(schema: Any, path: str, expected: list[str]) -> None:
    assert codes(f"{{{{ outputs.made{path} }}}}", schema) == expected


def test_s15_1_every_member_that_reads_is_searched_at_any_depth_and_forward() -> None:
    read = "outputs.gone.x"
    blocks = [
        block(
            "parallel",
            "p",
            branches=[
                [step("params", params=[{"a": [f"{{{{ {read} }}}}"]}]), step("when", when=read)],
                [block("sub_sequence", "input", sequence_name="s", input={"x": f"{{{{ {read} }}}}"})],
                [block("loop", "loop", condition=read, break_on=read, body=[step("l")])],
                [block("for_each", "each", collection=read, body=[step("e")])],
                [block("router", "router", routes=[{"condition": read, "blocks": []}])],
            ],
        ),
        step("forward", params="{{ outputs.later.x }}"),
        step("later"),
    ]
    expected = [(c, "MISSING_PRODUCER", read) for c in ("each", "input", "loop", "params", "router", "when")]
    assert findings(*blocks) == sorted([*expected, ("forward", "TYPE_UNKNOWN", "outputs.later.x")])


def test_s15_1_a_for_each_variable_is_no_part_of_the_input() -> None:
    closed = {"type": "object", "additionalProperties": False}
    body = [step("use", params="{{ data.item.id }} {{ data._error.message }}")]
    made = findings(block("for_each", "f", collection="x", body=body), step("x", params="{{ data.item }}"),
                    input_schema=closed)  # fmt: skip
    assert [(consumer, code) for consumer, code, _ in made] == [
        ("use", "TYPE_UNKNOWN"),
        ("use", "TYPE_UNKNOWN"),
        ("x", "SCHEMA_PATH_MISSING"),
    ]


def test_s15_1_references_are_counted_once_per_consumer_root_path_and_fallback() -> None:
    text = "{{ data.a }} {{ data.a }} {{ data.a | 1 }} {{ config.a }} {{ data.a.b }}"
    report = report_on(parse_definition(definition(step("s", params=[text, text]), step("t", params=text))))
    assert report.references_checked == 8


def test_s15_1_findings_are_sorted_by_consumer_code_and_reference() -> None:
    params = "{{ outputs.z.x }} {{ outputs.a.x }} {{ state.x }}"
    made = findings(step("b", params=params), step("a", params=params))
    assert made == sorted(made)
    assert len(made) == 6


def test_s15_1_the_hash_is_of_the_definition_not_of_how_it_is_written() -> None:
    raw = definition(*EVERY_BLOCK, input_schema=PERSON)
    shuffled = json.loads(json.dumps(raw, sort_keys=True))
    parsed = parse_definition(raw)
    hashes = {
        sha256_of(parsed),
        sha256_of(parse_definition(shuffled)),
        sha256_of(parse_definition(to_document(parsed))),
    }
    retired = {**to_document(parsed), "deprecated": True, "status": "unpublished"}
    assert hashes == {sha256_of(parse_definition(retired))}
    assert sha256_of(parse_definition({**raw, "version": 2})) not in hashes


def test_s15_1_the_same_definition_gives_the_same_answer() -> None:
    raw = definition(*EVERY_BLOCK, step("made", output_schema=PERSON), input_schema=PERSON)
    properties = list(PERSON["properties"].items())
    random.Random(1).shuffle(properties)
    other = copy.deepcopy(raw)
    other["input_schema"]["properties"] = dict(properties)
    assert analyse(parse_definition(raw)) == analyse(parse_definition(other))


def generated(**fields: Any) -> dict[str, Any]:
    return analyse(parse_definition(definition(step("a", output_schema=PERSON), step("b-1"), **fields)))["generated"]


def test_s15_1_every_binding_names_the_hash() -> None:
    made = generated(input_schema=PERSON)
    assert made["generator_version"] == "orch8-dataflow-v2"
    assert made["schema"]["sequence"]["sha256"] == made["sequence_sha256"]
    assert made["schema"]["input"] == PERSON
    assert made["schema"]["outputs"] == {"a": PERSON, "b-1": True}
    for language in ("typescript", "python", "swift", "kotlin"):
        assert made["sequence_sha256"] in made[language]
    assert generated()["schema"]["input"] is True


def test_s15_1_typescript() -> None:
    schema = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "kind": {"enum": ["b", "a", 1, None]},
            "n": {"type": ["number", "null"]},
        },
    }
    text = generated(input_schema=schema)["typescript"]
    assert "export type SequenceInput = {\n" in text
    assert 'export interface StepOutputs {\n  "a": {\n' in text
    for line in (
        '"name": string;',
        '"kind"?: "a" | "b" | 1 | null;',
        '"n"?: null | number;',
        "[key: string]: unknown;",
    ):
        assert line in text
    assert '  "b-1": unknown;\n' in text
    assert "[key: string]" not in text.partition("StepOutputs")[2].replace("[key: string]: unknown", "", 1)


def test_s15_1_python_can_be_imported() -> None:
    text = generated(input_schema=PERSON)["python"]
    module: dict[str, Any] = {}
    exec(text, module)
    assert '"name": Required[str]' in text
    assert '"nick": NotRequired[str]' in text
    assert "total=False" in text
    assert module["SequenceInput"].__required_keys__ == {"name", "tags"}
    assert set(module["StepOutputs"].__annotations__) == {"a", "b-1"}


HOSTILE_NAMES = [
    '"; import os; os.abort() #',
    "*/ evil()",
    "\\",
    "\n",
    "\u2028",
    "${evil}",
    "\\(evil)",
    "class",
    "é",
    "\U0001f600",
    "",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_s15_1_names_of_authors_stay_names(name: str) -> None:
    schema = {
        "type": "object",
        "required": [name],
        "properties": {name: {"type": "object", "properties": {name: {"const": name}, "x": {}}}},
    }
    raw = definition(step("a", output_schema=schema), input_schema=schema, name=name or "n")
    made = analyse(parse_definition(raw))["generated"]
    module: dict[str, Any] = {}
    exec(made["python"], module)
    assert module["SequenceInput"].__required_keys__ == {name}
    for language in ("typescript", "python", "swift", "kotlin"):
        assert made[language].isascii()
        assert made[language].count("\n// ") + made[language].count("\n# ") <= 2
    code = made["kotlin"].partition("import")[2]
    assert "${" not in code.replace("\\${", "")


def deep_schema(levels: int, innermost: dict[str, Any] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = innermost or {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize("place", ["input_schema", "output_schema"])
def test_s15_1_limits(place: str) -> None:
    def analysed(schema: dict[str, Any]) -> Any:
        fields = {place: schema}
        raw = definition(step("s"), **fields) if place == "input_schema" else definition(step("s", **fields))
        return analyse(parse_definition(raw))

    assert analysed(deep_schema(30))
    with pytest.raises(DataflowLimit, match="depth limit"):
        analysed(deep_schema(40))
    wide = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(4000)}}
    assert analysed(wide)
    wide["properties"] |= {f"q{n}": {} for n in range(200)}
    with pytest.raises(DataflowLimit, match="node limit"):
        analysed(wide)


def members(count: int, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": schema for n in range(count)}}


@pytest.mark.parametrize(
    ("fitting", "too_large"),
    [
        (members(4095, {"type": "string"}), members(4096, {"type": "string"})),
        (members(4095, {"type": ["string", "null"]}), members(4096, {"type": ["string", "null"]})),
        (members(1365, {"anyOf": [{"type": "string"}, {"type": "null"}]}), members(1366, {"anyOf": [{}, {}]})),
        (members(2047, {"type": "array", "items": {}}), members(2048, {"type": "array", "items": {}})),
        (members(2047, members(1, {})), members(2048, members(1, {}))),
        (members(2047, {"additionalProperties": True}), members(2048, {"additionalProperties": True})),
    ],
    ids=["members", "types", "options", "items", "objects", "additional"],
)
def test_s15_1_what_a_schema_says_counts_and_nothing_else(fitting: dict[str, Any], too_large: dict[str, Any]) -> None:
    assert analyse(parse_definition(definition(step("s", output_schema=fitting))))
    with pytest.raises(DataflowLimit, match="node limit of 4096"):
        analyse(parse_definition(definition(step("s", output_schema=too_large))))


@pytest.mark.parametrize("innermost", [{"type": "string"}, {"type": "object"}, {"type": ["array", "object"]}])
def test_s15_1_a_schema_may_be_32_deep_whatever_is_innermost(innermost: dict[str, Any]) -> None:
    assert analyse(parse_definition(definition(step("s", output_schema=deep_schema(32, innermost)))))
    with pytest.raises(DataflowLimit, match="depth limit of 32"):
        analyse(parse_definition(definition(step("s", output_schema=deep_schema(33, innermost)))))


def test_s15_1_references_that_multiply_end_at_the_node_limit() -> None:
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(14)}
    schema = {"$defs": {**definitions, "d14": {"type": "string"}}, "$ref": "#/$defs/d0"}
    with pytest.raises(DataflowLimit):
        report_on(parse_definition(definition(step("s", output_schema=schema))))


def test_s15_1_a_text_of_many_references_is_searched_once() -> None:
    text = "{{" + " data.a | data.b" * 20_000 + "}}"
    assert len(references_in(text)) == 3
