"""Requests drawn from the OpenAPI document, sent to an installation that really runs, by Schemathesis.

Every answer must be as the document says: its status, its type, its shape, also of refusals. Nothing is a 5xx, nothing
takes longer than `SLOWEST_S`, and afterwards the installation still runs what is started.

What is not drawn: streams, which do not end, and the draining of nodes, after which nobody would work. What is not
checked: that whatever has the shape of the document is accepted. A shape does not say that a name is taken, that a
cron expression means nothing, or that a text is empty; the refusals that say it are in the document.

Whole definitions are drawn by `drawn_definitions.py`, as their shape contains itself: drawing from it would not end.
`long_fuzzing.py` is the long form.
"""

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import schemathesis
from hypothesis import strategies as st

from orchestrator import embedded
from tests.contract.drawn_definitions import definitions, injections
from tests.support.stack import REPOSITORY, Stack, WorkerSpec

KEY = "key-of-the-operator-of-this-run"
SETTINGS = {"ORCH8_API_KEY": KEY, "ORCH8_REQUIRE_TENANT_HEADER": "true"}
SLOWEST_S = 20.0
NOT_DRAWN = r"/stream$|/cluster/nodes/\{id\}/drain$"
NOT_CHECKED = ("positive_data_acceptance",)
WALKS = """
[phases.stateful]
max-steps = 12
inference.algorithms = []
generation.mode = "positive"
[[operations]]
include-path = "/webhooks/{slug}"
phases.stateful.enabled = false
"""
"""Walks follow the links of the document alone: of those that are guessed from names, nothing is left to begin with.

And they begin with what may be made without a secret.
"""
TENANT_VARIABLE = "FUZZING_TENANT"
"""Tells the hooks, which run in the process of Schemathesis, whose definitions they draw."""
_DEFINITIONS = re.compile(r"/sequences(/dataflow|/preflight|/inspect-template)?")
_last_stored: deque[str] = deque(maxlen=1)
"""Its id: walks that begin with an instance have none."""
_NEEDED = ("sequence_id", "tenant_id")
_INJECTIONS = "/instances/{id}/inject-blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    Args:
        phases: Of Schemathesis.
        examples: Requests for each operation, in each phase that draws.
        only: Addresses; a regular expression.
        operations: `METHOD path`; all if none is named.
        seed: None for another one each time.
        is_same: Sends the same requests each time, whatever the seed.
    """

    phases: Sequence[str] = ("coverage", "fuzzing", "stateful")
    examples: int = 200
    only: str | None = None
    operations: Sequence[str] = ()
    seed: int | None = None
    is_same: bool = False


def is_drawn(path: str) -> bool:
    """Tell whether requests to a path of the document are drawn."""
    return re.search(NOT_DRAWN, path) is None


def headers_of(tenant: str) -> dict[str, str]:
    """Give the headers of requests in the name of a tenant."""
    return {"X-Tenant-Id": tenant, "x-api-key": KEY}


@contextmanager
def installation(
    directory: Path, servers: embedded.Servers | None = None, template: str | None = None
) -> Iterator[Stack]:
    """Start an installation that asks for a key and a tenant; see `Stack.running`."""
    workers = {"worker": WorkerSpec(concurrency=2)}
    with Stack.running(
        directory, workers=workers, with_api=True, servers=servers, template=template, env=SETTINGS
    ) as stack:
        yield stack


def fuzz(url: str, directory: Path, run: Run) -> subprocess.CompletedProcess[str]:
    """Send requests to an API, in the name of a new tenant; its return code is 0 if every answer was right.

    Args:
        url: Of the API.
        directory: For what it writes.
        run: What is sent.
    """
    settings = directory / "schemathesis.toml"
    tenant = f"fuzz-{uuid4().hex[:8]}"
    headers = "\n".join(f'{name} = "{value}"' for name, value in headers_of(tenant).items())
    settings.write_text(f"request-timeout = {SLOWEST_S}\ncontinue-on-failure = true\n[headers]\n{headers}\n{WALKS}")
    options: Mapping[str, str | None] = {
        "phases": ",".join(run.phases),
        "max-examples": str(run.examples),
        "exclude-checks": ",".join(NOT_CHECKED),
        "exclude-path-regex": NOT_DRAWN,
        "include-path-regex": run.only,
        "seed": None if run.seed is None else str(run.seed),
        "max-response-time": str(SLOWEST_S),
        "generation-database": None if run.is_same else "none",
        "warnings": "off",
    }
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--include-name={name}" for name in run.operations]
    command += ["--no-color", "--no-shrink", *(["--generation-deterministic"] if run.is_same else [])]
    environment = {"PYTHONPATH": str(REPOSITORY), "SCHEMATHESIS_HOOKS": __name__, TENANT_VARIABLE: tenant}
    return subprocess.run(
        [*command, f"{url}/api-docs/openapi.json"],
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@schemathesis.hook
def before_load_schema(_context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Say of bodies that hold definitions that they may be anything, so that they can be drawn by the next hook."""
    for path, operations in raw_schema["paths"].items():
        if "post" in operations and _drawn(path) is not None:
            operations["post"]["requestBody"]["content"]["application/json"]["schema"] = {}


@schemathesis.hook
def before_generate_body(context: schemathesis.HookContext, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw definitions as a language that can be drawn, not from their shape."""
    drawn = None if context.operation is None else _drawn(context.operation.path)
    return strategy if drawn is None else drawn


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Name our own tenant in three of four bodies: another one is refused, and a walk ends there.

    And begin half of the instances of the last definition that was stored, with nothing but what they need: any other
    member may be refused.
    """
    if not isinstance(body, dict):
        return body
    choice = crc32(repr(body).encode(errors="replace"))
    if choice % 4 and isinstance(body.get("tenant_id"), str):
        body = {**body, "tenant_id": os.environ[TENANT_VARIABLE]}
    if choice % 8 < 4 and context.operation is not None and _starts_instances(context.operation.path):
        body = {name: body[name] for name in _NEEDED if name in body} | {"namespace": "default"}
        if "sequence_id" in body and _last_stored:
            body["sequence_id"] = _last_stored[0]
    return body


def _starts_instances(path: str) -> bool:
    return path.removeprefix("/api/v1") in {"/instances", "/sequences/{name}/instances"}


def _drawn(path: str) -> st.SearchStrategy[Any] | None:
    address = path.removeprefix("/api/v1")
    if address == _INJECTIONS:
        return injections()
    return definitions(os.environ[TENANT_VARIABLE]) if _DEFINITIONS.fullmatch(address) else None


@schemathesis.hook
def after_call(_context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Take a refusal without a body for an empty text: OpenAPI has no words for "or nothing at all".

    And remember which definition was stored.
    """
    if response.status_code in {400, 401, 403} and not response.content and "content-type" not in response.headers:
        response.headers["content-type"] = ["text/plain"]
    if response.status_code == 201 and case.operation.path == "/api/v1/sequences":
        _last_stored.append(response.json()["id"])


def faults_of(stack: Stack) -> list[str]:
    """Give the lines of the log about requests that were answered with 500."""
    lines = (stack.directory / "all.log").read_text(errors="replace").splitlines()
    return [line for line in lines if "request_failed" in line]


def still_works(stack: Stack) -> None:
    """Run some instances to their end."""
    sequence = stack.define([{"type": "step", "id": "a", "handler": "noop"}])
    states = stack.wait_for_end(stack.start_instances(sequence, 5))
    assert set(states.values()) == {"completed"}
