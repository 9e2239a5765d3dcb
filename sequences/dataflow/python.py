"""Python of a definition: `TypedDict`s, in the form that takes any key."""

from types import MappingProxyType

import orjson

from sequences.dataflow.report import Shapes
from sequences.dataflow.shapes import UNKNOWN
from sequences.dataflow.source import Header, NamedTypes

_IMPORTS = "from typing import Any, Literal, NotRequired, Required, TypedDict\n"


def python(header: Header, shapes: Shapes) -> str:
    """Write the types of a sequence's input and of its blocks' outputs."""
    return f"{header.comment('#')}\n{_IMPORTS}\n{_Python().write(shapes.input or UNKNOWN, shapes.outputs)}"


class _Python(NamedTypes):
    unknown = "Any"
    scalars = MappingProxyType(
        {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
    )

    def alias(self, name: str, type_: str) -> str:
        return f"{name} = {type_}\n"

    def constants(self, texts: tuple[str, ...]) -> str:
        values = [orjson.loads(text) for text in texts]
        if any(isinstance(value, float | list | dict) for value in values):
            return "Any"
        return f"Literal[{', '.join(_constant(value) for value in values)}]"

    def array(self, element: str) -> str:
        return f"list[{element}]"

    def map(self, value: str) -> str:
        return f"dict[str, {value}]"

    def object(self, name: str, members: list[tuple[str, str, bool]]) -> str:
        lines = (
            f"    {_constant(key)}: {'Required' if is_required else 'NotRequired'}[{kind}],\n"
            for key, kind, is_required in members
        )
        return f'{name} = TypedDict("{name}", {{\n{"".join(lines)}}}, total=False)\n'

    def union(self, types: tuple[str, ...], *, is_nullable: bool) -> str:
        return " | ".join((*types, *(("None",) if is_nullable else ()))) or "Any"


def _constant(value: object) -> str:
    """Write a constant; a text in double quotes and ASCII, whatever is in it."""
    if not isinstance(value, str):
        return repr(value)
    return '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
