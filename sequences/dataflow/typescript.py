"""TypeScript of a definition: types only, no code."""

import orjson

from sequences.dataflow.report import Shapes
from sequences.dataflow.shapes import UNKNOWN, Array, Constants, Object, Scalar, Shape, Union, Unknown
from sequences.dataflow.source import Header, quoted

_SCALARS = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript(header: Header, shapes: Shapes) -> str:
    """Write the types of a sequence's input and of its blocks' outputs."""
    data = _type(shapes.input or UNKNOWN, "")
    outputs = "".join(f"  {quoted(name)}: {_type(shape or UNKNOWN, '  ')};\n" for name, shape in shapes.outputs.items())
    return (
        f"{header.comment('//')}\nexport type SequenceInput = {data};\n\nexport interface StepOutputs {{\n{outputs}}}\n"
    )


def _type(shape: Shape, indent: str) -> str:
    match shape:
        case Unknown():
            return "unknown"
        case Scalar():
            return _SCALARS[shape.type]
        case Constants():
            return _either({_literal(text) for text in shape.texts})
        case Union():
            return _either({_type(each, indent) for each in shape.alternatives})
        case Object():
            return _object(shape, indent)
        case Array():
            return _array(shape, indent)


def _either(types: set[str]) -> str:
    """Write a union with its members sorted; `unknown` takes in all others."""
    if "unknown" in types:
        return "unknown"
    return " | ".join(sorted(types)) or "never"


def _literal(text: str) -> str:
    """Write a constant: objects and arrays are types of values that TypeScript cannot pin down."""
    value = orjson.loads(text)
    if isinstance(value, list | dict):
        return "unknown"
    return quoted(value) if isinstance(value, str) else text


def _object(shape: Object, indent: str) -> str:
    inner = indent + "  "
    lines = [
        f"{inner}{quoted(member.name)}{'' if member.is_required else '?'}: {_type(member.shape, inner)};\n"
        for member in shape.members
    ]
    if shape.others is not None:
        others = "unknown" if lines else _type(shape.others, inner)
        lines.append(f"{inner}[key: string]: {others};\n")
    return f"{{\n{''.join(lines)}{indent}}}" if lines else "Record<string, never>"


def _array(shape: Array, indent: str) -> str:
    parts = (*shape.first, *(() if shape.items is None else (shape.items,)))
    element = _either({_type(part, indent) for part in parts}) if parts else "unknown"
    return f"({element})[]" if " | " in element else f"{element}[]"
