"""The whole answer about a definition: report, schema and bindings, all bound to one hash (§15.1)."""

import hashlib
from typing import Any, Final

import orjson

from sequences.blocks import SequenceDefinition, Step, walk
from sequences.dataflow.kotlin import kotlin
from sequences.dataflow.python import python
from sequences.dataflow.report import Shapes, report_on
from sequences.dataflow.source import Header
from sequences.dataflow.swift import swift
from sequences.dataflow.typescript import typescript
from sequences.document import to_document
from sequences.json_values import json_bytes

GENERATOR_VERSION: Final = "orch8-dataflow-v2"
"""A literal of the wire format: it names the form of what is generated."""
_NOT_CONTENT: Final = frozenset({"status", "deprecated"})
"""Members that change after a definition was stored."""


def sha256_of(definition: SequenceDefinition) -> str:
    """Return the hash of a definition: of its canonical JSON, keys sorted, in lower-case hex.

    Status and deprecation are not part of it, so that a draft and what is stored of it have one hash for ever.
    """
    document = {name: value for name, value in to_document(definition).items() if name not in _NOT_CONTENT}
    return hashlib.sha256(json_bytes(document, options=orjson.OPT_SORT_KEYS)).hexdigest()


def analyse(definition: SequenceDefinition) -> dict[str, Any]:
    """Check the dataflow of a definition and generate types for it. The same definition gives the same answer.

    Raises:
        DataflowLimit: A schema is too deep or too large.
    """
    shapes = Shapes.of(definition)
    header = Header(GENERATOR_VERSION, definition.name, definition.version, sha256_of(definition))
    return {
        "report": report_on(definition, shapes).document(),
        "generated": {
            "generator_version": GENERATOR_VERSION,
            "sequence_sha256": header.sha256,
            "schema": _schema(definition, header),
            "typescript": typescript(header, shapes),
            "python": python(header, shapes),
            "swift": swift(header, shapes),
            "kotlin": kotlin(header, shapes),
        },
    }


def _schema(definition: SequenceDefinition, header: Header) -> dict[str, Any]:
    return {
        "generator_version": GENERATOR_VERSION,
        "sequence": {
            "id": str(definition.id),
            "name": definition.name,
            "version": definition.version,
            "sha256": header.sha256,
        },
        "input": True if definition.input_schema is None else definition.input_schema,
        "outputs": {
            block.id: block.output_schema if isinstance(block, Step) and block.output_schema is not None else True
            for block in walk(definition.blocks)
        },
    }
