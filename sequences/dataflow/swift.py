"""Swift of a definition: `Codable` structures."""

from types import MappingProxyType
from typing import Final

from sequences.dataflow.report import Shapes
from sequences.dataflow.shapes import UNKNOWN
from sequences.dataflow.source import Header, PlainTypes, identifier, optional, words

_ANY_VALUE: Final = """public indirect enum JSONValue: Codable {
    case null, bool(Bool), number(Double), string(String), array([JSONValue]), object([String: JSONValue])

    public init(from decoder: Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() { self = .null
        } else if let known = try? value.decode(Bool.self) { self = .bool(known)
        } else if let known = try? value.decode(Double.self) { self = .number(known)
        } else if let known = try? value.decode(String.self) { self = .string(known)
        } else if let known = try? value.decode([JSONValue].self) { self = .array(known)
        } else { self = .object(try value.decode([String: JSONValue].self)) }
    }

    public func encode(to encoder: Encoder) throws {
        var value = encoder.singleValueContainer()
        switch self {
        case .null: try value.encodeNil()
        case .bool(let known): try value.encode(known)
        case .number(let known): try value.encode(known)
        case .string(let known): try value.encode(known)
        case .array(let known): try value.encode(known)
        case .object(let known): try value.encode(known)
        }
    }
}
"""
_RESERVED: Final = words(
    """
    as associatedtype break case catch class continue default defer deinit do else enum extension fallthrough
    false fileprivate for func guard if import in init inout internal is let nil open operator private protocol
    public repeat rethrows return self static struct subscript super switch throw throws true try typealias var
    where while Any Protocol Self Type
    """
)


def swift(header: Header, shapes: Shapes) -> str:
    """Write the types of a sequence's input and of its blocks' outputs."""
    types = _Swift().write(shapes.input or UNKNOWN, shapes.outputs)
    return f"{header.comment('//')}\nimport Foundation\n\n{_ANY_VALUE}\n{types}"


class _Swift(PlainTypes):
    unknown = "JSONValue"
    scalars = MappingProxyType(
        {"string": "String", "integer": "Int64", "number": "Double", "boolean": "Bool", "null": "JSONValue"}
    )

    def alias(self, name: str, type_: str) -> str:
        return f"public typealias {name} = {type_}\n"

    def array(self, element: str) -> str:
        return f"[{element}]"

    def map(self, value: str) -> str:
        return f"[String: {value}]"

    def object(self, name: str, members: list[tuple[str, str, bool]]) -> str:
        taken: set[str] = set()
        lines, keys = [], []
        for key, kind, is_required in members:
            own = identifier(key, taken, _RESERVED)
            lines.append(f"    public let {own}: {kind if is_required else optional(kind)}\n")
            keys.append(f"        case {own} = {_text(key)}\n")
        coding = f"\n    enum CodingKeys: String, CodingKey {{\n{''.join(keys)}    }}\n" if keys else ""
        return f"public struct {name}: Codable {{\n{''.join(lines)}{coding}}}\n"


def _text(text: str) -> str:
    """Write a string literal in ASCII."""
    safe = (char if " " <= char <= "~" and char not in '"\\' else f"\\u{{{ord(char):x}}}" for char in text)
    return '"' + "".join(safe) + '"'
