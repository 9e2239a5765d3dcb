"""JSON Schema of the language, made from its models, so that editors complete and check documents while they are typed.

Two forms: canonical, and the shorthand dialect (§16). What the models cannot say (that a member is required although
it has a default, aliases, rules that are checked later) is added here. A document that passes may still be refused:
unique ids, nesting and the like are beyond a schema.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from sequences.blocks import SequenceDefinition
from sequences.durations import DURATION_SCHEMA

Form = Literal["any", "canonical", "shorthand"]
Node = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOT_BLANK: Final = r"\S"
_CANONICAL: Final = "SequenceDefinition"
_SHORTHAND: Final = "ShorthandDefinition"
_BLOCK: Final = "Block"
_SHORT: Final = "Short"
_LISTED: Final = ("Route", "Variant", "SagaStep")
"""Parts of blocks that hold blocks themselves."""

_RULES: Final[dict[str, dict[str, Node]]] = {
    _CANONICAL: {"blocks": {"minItems": 1}},
    "Step": {"id": {"minLength": 1}, "handler": {"pattern": _NOT_BLANK}},
    "Parallel": {"branches": {"minItems": 1, "maxItems": 256}},
    "Race": {"branches": {"minItems": 1, "maxItems": 256}},
    "Loop": {
        "condition": {"pattern": _NOT_BLANK},
        "body": {"minItems": 1},
        "max_iterations": {"minimum": 1, "maximum": 100_000},
    },
    "ForEach": {
        "item_var": {"pattern": _NOT_BLANK},
        "body": {"minItems": 1},
        "max_iterations": {"minimum": 1, "maximum": 100_000},
        "concurrency": {"minimum": 1},
    },
    "Router": {"routes": {"maxItems": 256}},
    "Route": {"condition": {"pattern": _NOT_BLANK}},
    "TryCatch": {"try_block": {"minItems": 1}},
    "SubSequence": {"sequence_name": {"pattern": _NOT_BLANK}},
    "ABSplit": {"variants": {"minItems": 2, "maxItems": 256}},
    "Variant": {"name": {"pattern": _NOT_BLANK}},
    "CancellationScope": {"blocks": {"minItems": 1}},
    "Saga": {"steps": {"maxItems": 256}},
    "Retry": {"max_attempts": {"minimum": 1}, "backoff_multiplier": {"exclusiveMinimum": 0}},
    "SendWindow": {
        "start_hour": {"minimum": 0, "maximum": 23},
        "end_hour": {"minimum": 0, "maximum": 23},
        "days": {"items": {"type": "integer", "minimum": 0, "maximum": 6}},
    },
    "RateLimit": {"max": {"minimum": 1}, "window_seconds": {"minimum": 1}},
    "Compensation": {"handler": {"pattern": _NOT_BLANK}, "depends_on": {"maxItems": 256, "uniqueItems": True}},
    "HandlerCall": {"handler": {"pattern": _NOT_BLANK}},
    "Interceptor": {"handler": {"pattern": _NOT_BLANK}},
}
"""Rules of §2.3 that a schema can say, by definition and member."""


def language_schema(form: Form = "any") -> Node:
    """Return the schema of one form of documents, or of both. A new object each time."""
    definitions = _definitions()
    head: Node = {"$schema": _DIALECT, "title": "Sequence", "$defs": definitions}
    match form:
        case "canonical":
            return _pruned({**head, "$ref": _ref(_CANONICAL)})
        case "shorthand":
            return _pruned({**head, "$ref": _ref(_SHORTHAND)})
        case "any":
            return {
                **head,
                "type": "object",
                "if": {"anyOf": [{"required": ["name"]}, {"required": ["version"]}]},
                "then": {"$ref": _ref(_CANONICAL)},
                "else": {"$ref": _ref(_SHORTHAND)},
            }


def _definitions() -> dict[str, Node]:
    whole = SequenceDefinition.model_json_schema()
    definitions: dict[str, Node] = {name: _plain(node) for name, node in whole.pop("$defs").items()}
    definitions[_CANONICAL] = _plain(whole)
    definitions["Duration"] = DURATION_SCHEMA
    tags = {name: node["properties"]["type"]["const"] for name, node in definitions.items() if _is_block(node)}
    for name in tags:
        definitions[name]["required"] = ["type", *definitions[name]["required"]]
    _apply_rules(definitions)
    _add_aliases(definitions)
    definitions[_BLOCK] = _block(tags, "")
    _add_shorthand(definitions, tags)
    return dict(sorted(definitions.items()))


def _is_block(node: Node) -> bool:
    return "const" in node.get("properties", {}).get("type", {})


def _ref(name: str) -> str:
    return f"#/$defs/{name}"


def _plain(node: Any) -> Any:
    """Tidy what the models give: no titles, no null defaults, one name for durations and for blocks."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("anyOf") == DURATION_SCHEMA["anyOf"]:
        return {"$ref": _ref("Duration")}
    if len(node.get("oneOf", ())) > 1 and {"$ref": _ref("Saga")} in node["oneOf"]:
        return {"$ref": _ref(_BLOCK)}
    return {
        word: {name: _plain(inner) for name, inner in value.items()} if word == "properties" else _plain(value)
        for word, value in node.items()
        if not (word == "title" and isinstance(value, str)) and not (word == "default" and value is None)
    }


def _apply_rules(definitions: dict[str, Node]) -> None:
    for name, members in _RULES.items():
        for member, rule in members.items():
            written = definitions[name]["properties"][member]
            written.update(rule)
    for node in definitions.values():
        if _is_block(node):
            node["properties"]["id"]["minLength"] = 1


def _add_aliases(definitions: dict[str, Node]) -> None:
    """Say what is accepted beside the canonical names, in every document (§16)."""
    step = definitions["Step"]["properties"]
    step["wait_for_signal"]["anyOf"].append({"type": "boolean"})
    for node, member in ((definitions["Step"], "output_schema"), (definitions[_CANONICAL], "input_schema")):
        node["properties"][member] = {"type": ["object", "null"], "description": "A JSON Schema."}
    choices = definitions["WaitForInput"]["properties"]["choices"]["anyOf"]
    choices[0]["minItems"] = 1
    definitions["Parallel"]["properties"]["on_failure"] = {
        "enum": ["continue", "cancel_siblings", None],
        "description": "Alias of `failure_policy`.",
    }
    split = definitions["ABSplit"]["properties"]["type"]
    split["enum"] = [split.pop("const"), "ab_split"]
    retry = definitions["Retry"]
    retry["properties"]["backoff"] = {
        "$ref": _ref("Duration"),
        "description": "Short for equal `initial_backoff` and `max_backoff`.",
    }
    retry["required"] = ["max_attempts"]
    retry["anyOf"] = [{"required": ["initial_backoff", "max_backoff"]}, {"required": ["backoff"]}]
    router = definitions["Router"]
    router["anyOf"] = [{"properties": {"routes": {"minItems": 1}}}, {"required": ["default"]}]


def _block(tags: dict[str, str], prefix: str) -> Node:
    """Choose the block by its tag: an editor then tells what is wrong with that block, not with eleven."""
    names = {tag: name for name, tag in tags.items()} | {"ab_split": "ABSplit"}
    return {
        "type": "object",
        "properties": {"type": {"enum": sorted(names)}},
        "allOf": [
            {
                "if": {"properties": {"type": {"const": tag}}, "required": ["type"]},
                "then": {"$ref": _ref(prefix + name)},
            }
            for tag, name in sorted(names.items())
        ],
        **({"required": ["type"]} if not prefix else {"anyOf": [{"required": ["type"]}, {"$ref": _ref("ShortStep")}]}),
    }


def _add_shorthand(definitions: dict[str, Node], tags: dict[str, str]) -> None:
    own = (*tags, *_LISTED)
    renamed = {_ref(name): _ref(_SHORT + name) for name in (*own, _BLOCK)}
    for name in own:
        node = _with_refs(definitions[name], renamed)
        node["required"] = [member for member in node["required"] if member != "id"]
        if "id" in node["properties"]:
            node["properties"]["id"] = {"type": ["string", "null"], "minLength": 1}
        definitions[_SHORT + name] = node
    for name, change in _SHORT_FORMS.items():
        change(definitions[_SHORT + name])
    definitions[_SHORT + _BLOCK] = _block(tags, _SHORT)
    whole = _with_refs(definitions[_CANONICAL], renamed)
    whole["required"] = ["id", "blocks"]
    whole["properties"]["id"] = {"type": "string", "pattern": _NOT_BLANK, "description": "Name of the sequence."}
    for member in ("name", "version"):
        del whole["properties"][member]
    whole["not"] = {"anyOf": [{"required": ["name"]}, {"required": ["version"]}]}
    definitions[_SHORTHAND] = whole


def _with_refs(node: Any, renamed: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_with_refs(each, renamed) for each in node]
    if not isinstance(node, dict):
        return copy.copy(node)
    return {
        word: renamed.get(value, value) if word == "$ref" else _with_refs(value, renamed)
        for word, value in node.items()
    }


def _allow(*names: tuple[str, str]) -> Callable[[Node], None]:
    """Allow a short name in the place of a long one."""

    def change(node: Node) -> None:
        for short, long in names:
            node["properties"][short] = copy.deepcopy(node["properties"][long])
            if long in node["required"]:
                node["required"].remove(long)
                node.setdefault("allOf", []).append({"anyOf": [{"required": [long]}, {"required": [short]}]})

    return change


def _shorten_router(node: Node) -> None:
    routes = node["properties"]["routes"]
    default = {"type": "object", "required": ["default"], "properties": {"default": {"const": True}}}
    routes["items"] = {"anyOf": [routes["items"], default]}


_SHORT_FORMS: Final[dict[str, Callable[[Node], None]]] = {
    "Step": lambda node: node["required"].remove("type"),
    "Loop": _allow(("blocks", "body")),
    "ForEach": _allow(("blocks", "body")),
    "TryCatch": _allow(("try", "try_block"), ("catch", "catch_block"), ("finally", "finally_block")),
    "Router": _shorten_router,
}


def _pruned(schema: Node) -> Node:
    """Leave out the definitions that nothing leads to."""
    definitions = schema["$defs"]
    needed: set[str] = set()
    waiting = [schema["$ref"]]
    while waiting:
        name = waiting.pop().removeprefix("#/$defs/")
        if name not in needed:
            needed.add(name)
            waiting.extend(_refs(definitions[name]))
    return {**schema, "$defs": {name: node for name, node in definitions.items() if name in needed}}


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for word, value in node.items():
            if word == "$ref":
                yield value
            else:
                yield from _refs(value)
    elif isinstance(node, list):
        for each in node:
            yield from _refs(each)
