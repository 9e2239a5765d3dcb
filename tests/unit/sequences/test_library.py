"""Every ready definition can be posted as it stands, and started with the input that lies beside it."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from sequences import library
from sequences.document import SequenceDefinition, parse_definition
from sequences.schemas import compile_schema
from sequences.shorthand import is_shorthand, normalize
from sequences.validation import validate

HOME = Path(library.__file__).parent
SHORTHAND = {"library_index", "research_agent", "support_agent"}


def definition_of(name: str) -> SequenceDefinition:
    document = library.load(name)
    if is_shorthand(document):
        now = datetime(2026, 1, 1, tzinfo=UTC)
        document = normalize(document, tenant_id="demo", now=now, new_id=UUID(int=1))
    return parse_definition(document)


@pytest.mark.parametrize("name", library.names())
def test_a_document_has_its_own_name_and_breaks_no_rule(name: str) -> None:
    definition = definition_of(name)
    assert definition.name == name.removesuffix("_v1")
    assert validate(definition).problems == ()


@pytest.mark.parametrize("name", library.names())
def test_the_example_input_fits_the_input_schema(name: str) -> None:
    schema = definition_of(name).input_schema
    data = library.example_input(name)
    assert data
    assert schema is None or not compile_schema(schema).violations(data)


def test_each_document_has_its_input_and_its_line() -> None:
    assert {path.stem for path in (HOME / "inputs").glob("*.json")} == set(library.names())
    readme = (HOME / "README.md").read_text()
    assert [name for name in library.names() if f"`{name}`" not in readme] == []


def test_the_agents_are_written_in_shorthand() -> None:
    assert {name for name in library.names() if is_shorthand(library.load(name))} == SHORTHAND


def test_ids_are_unique() -> None:
    ids = [library.load(name)["id"] for name in library.names()]
    assert len(ids) == len(set(ids))
