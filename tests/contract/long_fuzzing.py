"""The long form of `fuzzing.py`: part by part, two at a time, and on from where it was cut off.

    python -m tests.contract.long_fuzzing --examples 200 --seed 7

A part is some operations with each phase that looks at one operation at a time, or a number of walks from operation to
operation along the links of the document. What has passed is kept in `build/fuzzing/` with the seed and the document:
the same command again draws only what is left. What a part has found is in its log there.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from secrets import randbelow
from typing import Any

import httpx

from orchestrator import embedded
from tests.contract.fuzzing import Run, faults_of, fuzz, headers_of, installation, is_drawn, still_works
from tests.support.stack import REPOSITORY, Stack

HOME = REPOSITORY / "build" / "fuzzing"
MOST_OPERATIONS = 6
"""Of a part: loading the document takes seconds, and a cut costs no more than a part."""
WALKS = 25
"""Of a part."""
SINGLE = ("coverage", "fuzzing")
LEAST = {"sequences": 20, "instances": 10, "steps done": 3}
"""What the walks must have made in the database, or they led nowhere."""
FURTHER = 3
"""How often as many walks again are drawn, where chance has led the first ones to less than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process draws.

    Args:
        name: Of its log.
        operations: `METHOD path`; all of them if none is named.
        phases: Of Schemathesis.
        examples: For each operation, or walks.
        seed: Of what is drawn.
    """

    name: str
    operations: Sequence[str] = ()
    phases: Sequence[str]
    examples: int
    seed: int


@dataclass(slots=True, kw_only=True)
class Progress:
    """What is done of a run, kept in a file.

    Args:
        seed: Of the run.
        examples: For each operation.
        document: Digest of the OpenAPI document.
        passed: Names of the parts, and how many seconds each took.
        made: Rows that the installations of the run held when they ended, by kind.
    """

    seed: int
    examples: int
    document: str
    passed: dict[str, float] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Keep it."""
        file.write_text(json.dumps(asdict(self), indent=2))


def begin(file: Path, document: Mapping[str, Any], examples: int, seed: int | None) -> Progress:
    """Go on with the run that a file holds, if it draws the same; else begin one."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    if file.exists():
        kept = Progress(**json.loads(file.read_text()))
        if (kept.examples, kept.document) == (examples, digest) and seed in {None, kept.seed}:
            return kept
    return Progress(seed=randbelow(2**31) if seed is None else seed, examples=examples, document=digest)


def parts_of(document: Mapping[str, Any], examples: int, seed: int) -> Iterator[Part]:
    """Share the operations of a document out: those of one collection together, then walks over all of them."""
    drawn = [
        (path, f"{method.upper()} {path}")
        for path, operations in document["paths"].items()
        for method in operations
        if is_drawn(path)
    ]
    drawn.sort(key=lambda each: (_collection(each[0]), each))
    for collection, members in groupby(drawn, key=lambda each: _collection(each[0])):
        names = [name for _, name in members]
        for index in range(0, len(names), MOST_OPERATIONS):
            chosen = names[index : index + MOST_OPERATIONS]
            name = f"{collection}-{index // MOST_OPERATIONS + 1}"
            yield Part(name=name, operations=chosen, phases=SINGLE, examples=examples, seed=seed)
    yield from walks_of(examples, seed)


def walks_of(examples: int, seed: int, *, behind: int = 0) -> Iterator[Part]:
    """Share walks out; those of a further round come behind the parts of the rounds before."""
    for index, done in enumerate(range(0, examples, WALKS), behind):
        walks = min(WALKS, examples - done)
        yield Part(name=f"walks-{index + 1}", phases=("stateful",), examples=walks, seed=seed + index)


def _collection(path: str) -> str:
    return path.removeprefix("/api/v1").split("/")[1]


def play(stack: Stack, part: Part) -> tuple[bool, float]:
    """Draw a part; returns whether every answer was right, and the seconds it took."""
    began = time.monotonic()
    run = Run(phases=part.phases, examples=part.examples, operations=part.operations, seed=part.seed)
    with tempfile.TemporaryDirectory(prefix="orchestrator-fuzz-part-") as directory:
        result = fuzz(stack.api_url, Path(directory), run)
    (HOME / f"{part.name}.log").write_text(result.stdout)
    return result.returncode == 0, time.monotonic() - began


def made_by(stack: Stack) -> dict[str, int]:
    """Count what clients have made in an installation."""
    found = stack.query(
        "SELECT (SELECT count(*) FROM sequences), (SELECT count(*) FROM instances), (SELECT count(*) FROM outputs)"
    )
    return dict(zip(LEAST, found[0], strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Draw requests from the OpenAPI document, part by part.")
    parser.add_argument("--examples", type=int, default=200, help="requests for each operation and phase, and walks")
    parser.add_argument("--seed", type=int, help="repeat a run; by default go on with the last one, or begin another")
    parser.add_argument("--only", default="", help="parts whose names begin so")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="draw what has passed, too")
    given = parser.parse_args(arguments)
    HOME.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-fuzz-"))
    directory.chmod(0o711)
    try:
        with installation(directory) as stack:
            return _run(stack, given)
    finally:
        embedded.remove(directory)


def _run(stack: Stack, given: argparse.Namespace) -> int:
    file = HOME / "progress.json"
    document = httpx.get(f"{stack.api_url}/api-docs/openapi.json", headers=headers_of("fuzz"), timeout=60).json()
    progress = begin(file, document, given.examples, given.seed)
    if given.again:
        progress.passed, progress.made = {}, {}
    every = list(parts_of(document, given.examples, progress.seed))
    left = [part for part in every if part.name not in progress.passed and part.name.startswith(given.only)]
    _say(f"seed {progress.seed}: {len(left)} of {len(every)} parts are left; what they find is in {HOME}")
    draw = partial(_draw, stack, processes=given.processes, progress=progress, file=file, earlier=dict(progress.made))
    failed = draw(left)
    is_whole = all(part.name in progress.passed for part in every)
    walks = behind = len(list(walks_of(given.examples, progress.seed)))
    while is_whole and not failed and _is_idle(progress) and behind <= FURTHER * walks:
        _say(f"made: {progress.made}; walks are drawn once more")
        failed = draw(list(walks_of(given.examples, progress.seed, behind=behind)))
        behind += walks
    still_works(stack)
    faults = faults_of(stack)
    _say(*faults, *(f"see {HOME / name}.log" for name in failed), f"made: {progress.made}")
    leads_nowhere = is_whole and not failed and _is_idle(progress)
    if leads_nowhere:
        _say(f"the walks led nowhere: at least {LEAST} must have been made")
    return int(bool(failed or faults or leads_nowhere))


def _is_idle(progress: Progress) -> bool:
    return any(progress.made[kind] < LEAST[kind] for kind in LEAST)


def _draw(
    stack: Stack,
    parts: Sequence[Part],
    *,
    processes: int,
    progress: Progress,
    file: Path,
    earlier: Mapping[str, int],
) -> list[str]:
    """Draw parts side by side, and keep what has passed; returns the names of the others.

    Args:
        earlier: What was made in the installations before this one.
    """
    failed = []
    with ThreadPoolExecutor(processes) as pool:
        playing = {pool.submit(play, stack, part): part for part in parts}
        for count, future in enumerate(as_completed(playing), 1):
            part, (is_right, seconds) = playing[future], future.result()
            _say(f"{count:3}/{len(parts)} {part.name:24} {seconds:6.0f} s  {'passed' if is_right else 'FAILED'}")
            if is_right:
                progress.passed[part.name] = round(seconds, 1)
            else:
                failed.append(part.name)
            progress.made = {kind: earlier.get(kind, 0) + number for kind, number in made_by(stack).items()}
            progress.save(file)
    return failed


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
