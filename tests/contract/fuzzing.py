"""Requests drawn from the OpenAPI document, sent to an installation that really runs, by Schemathesis.

    python -m tests.contract.fuzzing --examples 200

Every answer must be as the document says: its status, its type, its shape, also of refusals. Nothing is a 5xx, nothing
takes longer than `SLOWEST_S`, and afterwards the installation still runs what is started.

What is not drawn: streams, which do not end, and the draining of nodes, after which nobody would work. What is not
checked: that whatever has the shape of the document is accepted. A shape does not say that a name is taken, that a
cron expression means nothing, or that a text is empty; the refusals that say it are in the document.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import schemathesis

from orchestrator import embedded
from tests.support.stack import REPOSITORY, Stack, WorkerSpec

KEY = "key-of-the-operator-of-this-run"
SETTINGS = {"ORCH8_API_KEY": KEY, "ORCH8_REQUIRE_TENANT_HEADER": "true"}
SLOWEST_S = 20.0
NOT_DRAWN = r"/stream$|/cluster/nodes/\{id\}/drain$"
NOT_CHECKED = ("positive_data_acceptance",)
_DEFINITIONS = r"/sequences(/dataflow|/preflight|/inspect-template)?$"
"""They take whole definitions, whose shape contains itself: drawing from it would not end.

Definitions are drawn by the model (`make model`), and poked in `test_hostile_bodies.py`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    Args:
        phases: Of Schemathesis.
        examples: Requests for each operation, in each phase that draws.
        only: Addresses; a regular expression.
        seed: None for another one each time.
        is_same: Sends the same requests each time, whatever the seed.
    """

    phases: Sequence[str] = ("coverage", "fuzzing", "stateful")
    examples: int = 200
    only: str | None = None
    seed: int | None = None
    is_same: bool = False


@contextmanager
def installation(directory: Path, servers: embedded.Servers | None = None) -> Iterator[Stack]:
    """Start an installation that asks for a key and a tenant."""
    workers = {"worker": WorkerSpec(concurrency=2)}
    with Stack.running(directory, workers=workers, with_api=True, servers=servers, env=SETTINGS) as stack:
        yield stack


def fuzz(url: str, directory: Path, run: Run, *, shows: bool = False) -> subprocess.CompletedProcess[str]:
    """Send requests to an API, in the name of a tenant of this run; its return code is 0 if every answer was right.

    Args:
        url: Of the API.
        directory: For what it writes.
        run: What is sent.
        shows: Whether what it finds is shown as it goes; else it is in the result.
    """
    settings = directory / "schemathesis.toml"
    settings.write_text(
        f"""
        request-timeout = {SLOWEST_S}
        continue-on-failure = true
        [headers]
        X-Tenant-Id = "fuzz-{uuid4().hex[:8]}"
        x-api-key = "{KEY}"
        [[operations]]
        include-path-regex = '{_DEFINITIONS}'
        phases.coverage.enabled = false
        phases.fuzzing.enabled = false
        phases.stateful.enabled = false
        """
    )
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
    command += ["--no-color", "--no-shrink", *(["--generation-deterministic"] if run.is_same else [])]
    return subprocess.run(
        [*command, f"{url}/api-docs/openapi.json"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SCHEMATHESIS_HOOKS": __spec__.name},
        stdout=None if shows else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@schemathesis.hook
def after_call(_context: schemathesis.HookContext, _case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Take a refusal without a body for an empty text: OpenAPI has no words for "or nothing at all"."""
    if response.status_code in {400, 401, 403} and not response.content and "content-type" not in response.headers:
        response.headers["content-type"] = ["text/plain"]


def faults_of(stack: Stack) -> list[str]:
    """Give the lines of the log about requests that were answered with 500."""
    lines = (stack.directory / "all.log").read_text(errors="replace").splitlines()
    return [line for line in lines if "request_failed" in line]


def still_works(stack: Stack) -> None:
    """Run some instances to their end."""
    sequence = stack.define([{"type": "step", "id": "a", "handler": "noop"}])
    states = stack.wait_for_end(stack.start_instances(sequence, 5))
    assert set(states.values()) == {"completed"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Draw requests from the OpenAPI document.")
    parser.add_argument("--examples", type=int, default=200, help="requests for each operation in each phase")
    parser.add_argument("--phases", default=",".join(Run().phases), help="coverage, fuzzing, stateful")
    parser.add_argument("--only", help="addresses, as a regular expression")
    parser.add_argument("--seed", type=int, help="repeat a run")
    given = parser.parse_args(arguments)
    run = Run(phases=given.phases.split(","), examples=given.examples, only=given.only, seed=given.seed)
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-fuzz-"))
    directory.chmod(0o711)
    try:
        with installation(directory) as stack:
            result = fuzz(stack.api_url, directory, run, shows=True)
            print(*faults_of(stack), sep="\n")
            still_works(stack)
            return result.returncode or len(faults_of(stack))
    finally:
        embedded.remove(directory)


if __name__ == "__main__":
    sys.exit(main())
