"""Kotlin of a definition: classes for kotlinx.serialization."""

from types import MappingProxyType
from typing import Final

from sequences.dataflow.report import Shapes
from sequences.dataflow.shapes import UNKNOWN
from sequences.dataflow.source import Header, PlainTypes, identifier, optional, quoted, words

_IMPORTS: Final = (
    "import kotlinx.serialization.SerialName\n"
    "import kotlinx.serialization.Serializable\n"
    "import kotlinx.serialization.json.JsonElement\n"
)
_RESERVED: Final = words(
    """
    as break class continue do else false for fun if in interface is null object package return super this throw
    true try typealias typeof val var when while
    """
)


def kotlin(header: Header, shapes: Shapes) -> str:
    """Write the types of a sequence's input and of its blocks' outputs."""
    return f"{header.comment('//')}\n{_IMPORTS}\n{_Kotlin().write(shapes.input or UNKNOWN, shapes.outputs)}"


class _Kotlin(PlainTypes):
    unknown = "JsonElement"
    scalars = MappingProxyType(
        {"string": "String", "integer": "Long", "number": "Double", "boolean": "Boolean", "null": "JsonElement?"}
    )

    def alias(self, name: str, type_: str) -> str:
        return f"typealias {name} = {type_}\n"

    def array(self, element: str) -> str:
        return f"List<{element}>"

    def map(self, value: str) -> str:
        return f"Map<String, {value}>"

    def object(self, name: str, members: list[tuple[str, str, bool]]) -> str:
        if not members:
            return f"@Serializable\nclass {name}\n"
        taken: set[str] = set()
        lines = []
        for key, kind, is_required in members:
            own = identifier(key, taken, _RESERVED)
            declared = kind if is_required else f"{optional(kind)} = null"
            lines.append(f"    @SerialName({_text(key)}) val {own}: {declared},\n")
        return f"@Serializable\ndata class {name}(\n{''.join(lines)})\n"


def _text(text: str) -> str:
    """Write a string literal; a dollar sign would begin a template."""
    return quoted(text).replace("$", "\\$")
