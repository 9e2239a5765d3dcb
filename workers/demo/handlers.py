"""The handlers of `library_index`.

Outputs stay out of `context.data`: thousands of modules would not fit in there. Test cases, files named `test_*.py`,
are no part of a library and are left out; what they rest on (support, data that must not parse) is taken in.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.client import Client
from workers import PermanentError, StepContext, handler
from workers.demo.analysis import ModuleRecord, Unreadable, analyse
from workers.demo.page import render
from workers.demo.publishing import publish
from workers.demo.report import build

NOT_THE_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})
TEST_CASE = "test_"


@handler("demo.find_modules", merge_output=False)
def find_modules(source: str) -> dict[str, Any]:
    """List the modules below a folder, by path."""
    root = Path(source)
    if not root.is_dir():
        raise PermanentError(f"{source!r} is no folder on this machine", code="no_source")
    return {"paths": sorted(_modules(root))}


def _modules(root: Path) -> Iterator[str]:
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        is_test_case = path.name.startswith(TEST_CASE)
        if not is_test_case and NOT_THE_LIBRARY.isdisjoint(relative.parts) and path.is_file():
            yield relative.as_posix()


@handler("demo.fingerprint_module", merge_output=False)
def fingerprint_module(source: str, path: str) -> dict[str, Any]:
    """Say which bytes are going to be indexed."""
    content = Path(source, path).read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@handler("demo.index_module", merge_output=False)
def index_module(source: str, path: str, sha256: str) -> ModuleRecord:
    """Index one module; one that does not parse fails for good, trying again would not change it."""
    content = Path(source, path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PermanentError("the file has changed since its fingerprint", code="changed", details={"path": path})
    try:
        return analyse(path, content)
    except Unreadable as error:
        details = {"path": path, "line": error.line}
        raise PermanentError(error.reason, code="unreadable", details=details) from error


@handler("demo.quarantine_module", merge_output=False)
def quarantine_module(path: str, error: dict[str, Any]) -> dict[str, Any]:
    """Keep what is known of a module that could not be indexed."""
    details = error.get("details") or {}
    about = details.get("path", path)
    if about != path:
        raise PermanentError(f"the failure of {about!r} was handed to the quarantine of {path!r}")
    return {"path": path, "reason": error.get("message", ""), "line": details.get("line"), "step": error.get("step_id")}


@handler("demo.publish_index", merge_output=False)
def publish_index(ctx: StepContext, directory: str, api: str, tenant: str) -> dict[str, Any]:
    """Make one report of all stored records. Doing it twice leaves the same files."""
    with Client(api, tenant=tenant) as client:
        outputs = client.outputs(ctx.instance_id)
    report = build(
        [row.output for row in outputs if row.block_id == "index"],
        [row.output for row in outputs if row.block_id == "quarantine"],
        python=".".join(map(str, sys.version_info[:3])),
        instance_id=str(ctx.instance_id),
    )
    return publish(Path(directory), report, render(report))
