"""JSON Schemas of authors: compiled once, checked in linear time, never fetched from anywhere (§2.3)."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import orjson

from sequences.json_values import is_deeper
from sequences.schema_size import is_too_large

MAX_VIOLATIONS: Final = 20
MAX_VALUE_DEPTH: Final = 1024
"""As deep as a JSON reader goes; the validator recurses and would take the process down at some 10,000 levels."""
_MAX_MESSAGE: Final = 500
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20)


class SchemaError(ValueError):
    """Text that should be a JSON Schema is none, or refers to something outside itself; the author's fault."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled JSON Schema."""

    validator: Any

    def violations(self, value: Any) -> tuple[str, ...]:
        """Return what is wrong with a value, `at <json pointer>: <message>` each, at most 20; empty if it conforms."""
        if is_deeper(value, MAX_VALUE_DEPTH):
            return (f"at : nested deeper than {MAX_VALUE_DEPTH} levels",)
        try:
            errors = tuple(islice(self.validator.iter_errors(value), MAX_VIOLATIONS))
        except (ValueError, TypeError) as error:
            return (f"at : {str(error)[:_MAX_MESSAGE]}",)
        return tuple(f"at {_pointer(error.instance_path)}: {error.message[:_MAX_MESSAGE]}" for error in errors)


def compile_schema(schema: object) -> Schema:
    """Compile a JSON Schema, or take it from the cache.

    Raises:
        SchemaError: It is no object, breaks its meta-schema, has a pattern that cannot be matched in linear time, or
            refers to another document.
    """
    if not isinstance(schema, dict):
        raise SchemaError("expected a JSON Schema object")
    try:
        text = orjson.dumps(schema)
    except TypeError as error:
        raise SchemaError("a JSON Schema must be JSON, nested no deeper than 250 levels") from error
    return _compile(text)


@lru_cache(maxsize=512)
def _compile(text: bytes) -> Schema:
    schema = orjson.loads(text)
    if is_too_large(schema):
        raise SchemaError("its references expand to too many subschemas")
    try:
        validator = jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)
    except jsonschema_rs.ValidationError as error:
        raise SchemaError(error.message[:_MAX_MESSAGE]) from error
    except ValueError as error:
        raise SchemaError(str(error)[:_MAX_MESSAGE]) from error
    return Schema(validator)


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
