"""Runs the faults for some hours: see the package."""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.faults.nightly.campaign import Campaign
from tests.faults.nightly.kinds import LONG, Kind, draw, groups_of, kinds_of
from tests.faults.nightly.record import Record
from tests.faults.nightly.site import Plan, Site

PER_SECOND = 8.0
BROKEN_INSTALLATIONS = 3
"""So many installations in a row that did not come back end the run."""
LOG_LINES = 400


def main() -> int:
    """Play rounds until the hours are over; returns 1 if anything was broken."""
    options = _options()
    kept = Record.going_on(options.state, options.seed)
    print(f"seed {kept.seed}, {kept.rounds} rounds so far, state in {options.state}")
    broken = 0
    while not _is_over(kept, options) and broken < BROKEN_INSTALLATIONS:
        rounds = kept.rounds
        _play_on_one_installation(kept, options)
        broken = 0 if kept.rounds > rounds + 1 else broken + 1
    command = ("python", "-m", "tests.faults.nightly", *sys.argv[1:])
    report = kept.report(command)
    options.state.with_suffix(".md").write_text(report)
    print(report)
    return bool(kept.verdict())


def _play_on_one_installation(kept: Record, options: argparse.Namespace) -> None:
    """Play until the end, or until the installation does not come back from a fault."""
    directory = Path(tempfile.mkdtemp(prefix="nightly-"))
    directory.chmod(0o711)
    began, before = time.monotonic(), kept.seconds
    try:
        with Site.running(directory, per_second=PER_SECOND, seed=kept.seed, plan=options.plan) as site:
            campaign = Campaign(site, kept, LONG)
            while not _is_over(kept, options):
                drawn = Random(f"{kept.seed}/{kept.rounds}")
                kinds = draw(drawn, options.kinds)
                try:
                    campaign.play(kinds, drawn)
                except Exception:
                    _note_end(kept, options.state, kinds, site.stack.log_tail(LOG_LINES))
                    return
                finally:
                    kept.seconds = before + time.monotonic() - began
                    kept.save(options.state)
                print(
                    f"{kept.seconds:.0f} s: round {kept.rounds - 1} is over, {kept.accepted} instances, "
                    f"{len(kept.violations)} violations",
                    flush=True,
                )
            campaign.end()
            kept.save(options.state)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _is_over(kept: Record, options: argparse.Namespace) -> bool:
    return kept.seconds >= options.hours * 3600 or kept.rounds >= options.rounds


def _note_end(kept: Record, state: Path, kinds: Sequence[Kind], log: str) -> None:
    """Note a round that did not come to its end: itself a broken promise."""
    print(traceback.format_exc(), flush=True)
    state.with_suffix(f".round-{kept.rounds}.log").write_text(log)
    last = traceback.format_exc().splitlines()[-1][:300]
    kept.note(" + ".join(kind.name for kind in kinds), "the round comes to its end", [last])
    kept.rounds += 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nightly")
    parser.add_argument("--hours", type=float, default=2.0, help="how long, over all parts of the run")
    parser.add_argument("--rounds", type=int, default=10**9, help="how many faults, over all parts of the run")
    parser.add_argument(
        "--seed", type=int, default=None, help="decides every fault; by default that of the state, or a random one"
    )
    parser.add_argument("--state", type=Path, default=Path("build/nightly.json"), help="where the run is kept")
    parser.add_argument("--group", action="append", help="only faults of this group, or these")
    parser.add_argument("--rabbitmq", action="store_true", help="send hints through RabbitMQ")
    parser.add_argument("--pooler", action="store_true", help="reach PostgreSQL through PgBouncer")
    options = parser.parse_args()
    options.plan = Plan(rabbitmq=options.rabbitmq, pooler=options.pooler)
    kinds = kinds_of(options.plan)
    if unknown := set(options.group or ()) - set(groups_of(kinds)):
        parser.error(f"unknown groups: {sorted(unknown)}; there are: {', '.join(groups_of(kinds))}")
    options.kinds = [kind for kind in kinds if options.group is None or kind.group in options.group]
    options.state.parent.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
