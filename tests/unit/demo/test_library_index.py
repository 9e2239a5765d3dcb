"""The sequence of the demo, and its handlers: they fit one another."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from orchestrator.core.plan import Plan
from sequences import library
from sequences.document import SequenceDefinition, Step, parse_definition
from sequences.schemas import compile_schema
from sequences.shorthand import normalize
from sequences.validation import validate
from tests.support.drive import Flow, PureWorld
from workers import PermanentError
from workers.demo.handlers import find_modules, fingerprint_module, index_module, quarantine_module
from workers.registry import DEFAULT_REGISTRY

NOTHING = UUID(int=0)


@pytest.fixture
def definition() -> SequenceDefinition:
    document = library.load("library_index")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return parse_definition(normalize(document, tenant_id="demo", now=now, new_id=UUID(int=1)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small library: two modules that parse, one that does not, and what must be left out."""
    for name, text in {
        "good.py": '"""Good."""\ndef f(a):\n    """Do."""\n    return a or 1\n',
        "deep/__init__.py": "class C:\n    def m(self): ...\n",
        "bad.py": "print 'old'\n",
        "site-packages/other.py": "",
        "__pycache__/good.py": "",
        "tests/test_good.py": "",
        "data.txt": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_documents_are_listed_and_loaded_afresh() -> None:
    assert "library_index" in library.names()
    library.load("library_index").clear()
    assert library.load("library_index")["id"] == "library_index"


def test_an_unknown_document_is_named() -> None:
    with pytest.raises(LookupError, match=r"no library document 'nothing'; there are: .*library_index"):
        library.load("nothing")


def test_the_document_is_valid_without_warnings(definition: SequenceDefinition) -> None:
    report = validate(definition)
    assert (report.problems, report.warnings) == ((), ())


def steps(definition: SequenceDefinition) -> list[Step]:
    return [place.block for place in Plan(definition).places.values() if isinstance(place.block, Step)]


def test_every_handler_is_registered_and_keeps_out_of_the_context(definition: SequenceDefinition) -> None:
    handlers = {step.handler for step in steps(definition)} - {"noop"}
    for name in handlers:
        found = DEFAULT_REGISTRY.find(name)
        assert found is not None, name
        assert not found.merges, name


def test_two_queues_are_used(definition: SequenceDefinition) -> None:
    assert {step.queue_name for step in steps(definition)} == {None, "gpu"}


def schema(definition: SequenceDefinition, block_id: str) -> Any:
    block = Plan(definition).places[block_id].block
    assert isinstance(block, Step)
    assert block.output_schema is not None
    return compile_schema(block.output_schema)


def test_records_fit_the_schema(definition: SequenceDefinition, source: Path) -> None:
    fingerprint = fingerprint_module(str(source), "good.py")
    assert schema(definition, "fingerprint").violations(fingerprint) == ()
    record = index_module(str(source), "good.py", fingerprint["sha256"])
    assert schema(definition, "index").violations(orjson.loads(orjson.dumps(record))) == ()
    assert [f.complexity for f in record.functions] == [2]


@pytest.mark.parametrize(
    "wrong",
    [{"lines": -1}, {"extra": 1}, {"functions": [{"name": "f"}]}, {"complexity": [0]}, {"doc": "x" * 201}],
    ids=str,
)
def test_the_schema_refuses_what_is_no_record(
    definition: SequenceDefinition, source: Path, wrong: dict[str, Any]
) -> None:
    record = asdict(index_module(str(source), "good.py", fingerprint_module(str(source), "good.py")["sha256"]))
    assert schema(definition, "index").violations(orjson.loads(orjson.dumps({**record, **wrong})))


def test_only_modules_of_the_library_are_found(source: Path) -> None:
    assert find_modules(str(source)) == {"paths": ["bad.py", "deep/__init__.py", "good.py"]}
    with pytest.raises(PermanentError, match="no folder"):
        find_modules(str(source / "nothing"))


def test_a_file_that_changed_is_not_indexed(source: Path) -> None:
    sha256 = fingerprint_module(str(source), "good.py")["sha256"]
    (source / "good.py").write_text("x = 1\n")
    with pytest.raises(PermanentError, match="has changed"):
        index_module(str(source), "good.py", sha256)


def test_a_failure_of_another_module_is_refused() -> None:
    error = {"message": "no", "step_id": "index", "details": {"path": "a.py", "line": 7}}
    kept = {"path": "a.py", "reason": "no", "line": 7, "step": "index"}
    assert quarantine_module("a.py", error) == kept
    with pytest.raises(PermanentError, match=r"'a\.py' was handed to the quarantine of 'b\.py'"):
        quarantine_module("b.py", error)


def run_to_the_gate(source: Path) -> tuple[Flow, list[str]]:
    published: list[str] = []
    names = ("find_modules", "fingerprint_module", "index_module", "quarantine_module")
    functions = (find_modules, fingerprint_module, index_module, quarantine_module)
    handlers: dict[str, Any] = {f"demo.{name}": function for name, function in zip(names, functions, strict=True)}
    handlers["demo.publish_index"] = lambda directory, api, tenant: published.append(directory) or {}  # type: ignore[func-returns-value]
    world = PureWorld(handlers)
    document = library.load("library_index")
    flow = world.start(
        normalize(document, tenant_id="demo", now=datetime(2026, 1, 1, tzinfo=UTC), new_id=NOTHING)["blocks"],
        data={"source": str(source), "directory": "out"},
        config={"api": "http://here", "tenant": "demo"},
    )
    return flow.settle(), published


def test_the_flow_indexes_quarantines_and_waits(source: Path) -> None:
    flow, published = run_to_the_gate(source)
    assert flow.standing() == {"approval": "gate"}
    assert sorted(row["path"] for row in flow.outputs("index")) == ["deep/__init__.py", "good.py"]
    assert [(row["path"], row["line"]) for row in flow.outputs("quarantine")] == [("bad.py", 1)]
    flow.answer("approval", "publish").settle()
    assert (flow.state, published) == ("completed", ["out"])


def test_a_refused_index_is_not_published(source: Path) -> None:
    flow, published = run_to_the_gate(source)
    flow.answer("approval", "leave").settle()
    assert (flow.state, published) == ("completed", [])
