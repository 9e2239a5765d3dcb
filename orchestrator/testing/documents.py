"""Reading a sequence in whatever form a test has it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestrator.catalogue import check
from sequences import library
from sequences.document import SequenceDefinition, parse_definition
from sequences.shorthand import is_shorthand, normalize

TENANT = "test"
NAMESPACE = "default"

Source = SequenceDefinition | Mapping[str, Any] | Sequence[Any] | str | Path


def read_sequence(source: Source, now: datetime, *, name: str = "sequence") -> SequenceDefinition:
    """Read a sequence and check it as the API does.

    Args:
        source: A definition, a document (canonical or shorthand; id, name, version and the like may be left out), its
            blocks alone, JSON text, the path of a JSON file, or the name of a library sequence.
        name: For a document without one.

    Raises:
        DocumentError: It does not have the shape of the language.
        InvalidArgument: It breaks a rule.
        LookupError: There is neither such a file nor such a library sequence.
    """
    definition = source if isinstance(source, SequenceDefinition) else parse_definition(_document(source, now, name))
    check(definition)
    return definition


def _document(source: Any, now: datetime, name: str) -> dict[str, Any]:
    if isinstance(source, str | Path):
        return _document(_loaded(source), now, name)
    if not isinstance(source, Mapping):
        return _document({"blocks": list(source)}, now, name)
    document = dict(source)
    if is_shorthand(document):
        document.setdefault("id", name)
        document = normalize(document, tenant_id=TENANT, now=now, new_id=uuid4())
    given = {
        "id": str(uuid4()),
        "tenant_id": TENANT,
        "namespace": NAMESPACE,
        "name": name,
        "version": 1,
        "created_at": now.isoformat(),
    }
    return {**given, **document}


def _loaded(source: str | Path) -> Any:
    if isinstance(source, str) and source.lstrip().startswith(("{", "[")):
        return json.loads(source)
    if isinstance(source, Path) or source.endswith(".json"):
        return json.loads(Path(source).read_text(encoding="utf-8"))
    return library.load(source)
