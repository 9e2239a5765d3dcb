"""Runs the load for some hours: see the package."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.nightly.load import Load
from tests.soak.report import draw, report
from tests.soak.samples import Sample, take
from tests.soak.site import count_open, running
from tests.soak.verdict import judge
from tests.support.stack import Stack
from tests.support.waiting import wait_until

REST_SECONDS = 5.0
"""So long after the end of the load is looked at what is left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write what was seen, and return 1 if something grows."""
    options = _options(arguments)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    directory.chmod(0o711)
    try:
        with running(directory, options.per_second) as (stack, load):
            base, samples = _watch(stack, load, options)
            resting = _rest(stack, load, samples[-1])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    wrong = judge(samples, resting, base) + load.wrong
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = {"base": base, "samples": samples, "resting": resting, "wrong": wrong}
    (options.folder / "soak.json").write_text(json.dumps(kept, indent=1))
    written = report(samples, resting, base, wrong, options.per_second)
    (options.folder / "soak.md").write_text(written)
    print(written)
    for path in draw(samples, options.folder / "soak"):
        print(path)
    return bool(wrong)


def _watch(stack: Stack, load: Load, options: argparse.Namespace) -> tuple[Sample, list[Sample]]:
    """Take samples until the time is over; returns the first one apart."""
    began = time.monotonic()
    base = take(stack, len(load.accepted), began)
    samples: list[Sample] = []
    while not samples or samples[-1]["hours"] < options.hours:
        time.sleep(options.every)
        samples.append(take(stack, len(load.accepted), began))
        last = samples[-1]
        print(f"{last['hours']:.3f} h: {last['accepted']:.0f} accepted, Redis {last['Redis MB']:.1f} MB", flush=True)
    return base, samples


def _rest(stack: Stack, load: Load, last: Sample) -> Sample:
    """End the load, wait until all is done, and look once more."""
    load.stop()
    wait_until(lambda: count_open(stack) == 0, "all flows to end", within=120)
    time.sleep(REST_SECONDS)
    [[failed, unfinished]] = stack.query(
        "SELECT count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state <> 'completed') FROM instances"
    )
    found = take(stack, len(load.accepted), time.monotonic() - last["hours"] * 3600)
    return {**found, "failed": failed, "open": unfinished - failed}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--hours", type=float, default=24.0, help="how long the load lasts")
    parser.add_argument("--per-second", type=float, default=20.0, help="flows that are started")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two samples")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="where soak.json, .md, .png and .svg go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
