"""Start the servers, measure one engine after the other, end everything."""

import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from orchestrator import embedded
from orchestrator.embedded import Servers
from tests.benchmarks import machine, ours
from tests.benchmarks.figures import OURS, Figure, figures_of
from tests.benchmarks.installing import Unavailable
from tests.benchmarks.own import measure_own
from tests.benchmarks.works import Form, Say, measure


def run(form: Form, say: Say, *, handler: str, peers: Sequence[str], with_own: bool, folder: Path) -> list[Figure]:
    """Measure, and give the figures of all engines.

    Args:
        form: How often each work is done.
        say: Told about the progress.
        handler: What the steps of our engine run: the built-in no-op, or a plain function.
        peers: Names of the peers to measure as well: after the same works of ours, in the same run.
        with_own: Measure what only ours does as well.
        folder: Gets the data of the servers, which is removed at the end, the logs of all processes, and the peers.

    Raises:
        NotDurable: The servers would not keep what they commit.
        RuntimeError: A work of ours did not end as it has to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder, ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            servers = embedded.start(directory)
            return _measure_all(servers, form, say, handler=handler, peers=peers, with_own=with_own, folder=folder)
        finally:
            embedded.remove(directory)


def _measure_all(
    servers: Servers, form: Form, say: Say, *, handler: str, peers: Sequence[str], with_own: bool, folder: Path
) -> list[Figure]:
    if servers.postgres_pid is not None and servers.data_directory is not None:
        machine.check_filesystem(servers.data_directory)
    versions = {**machine.facts(servers), "form": form.name, "handler": handler, "repeats": form.repeats}
    say("  ".join(f"{name} {value}" for name, value in versions.items()))
    logs = folder / "bench-logs"
    with ours.running(servers, logs, handler) as bench:
        samples = measure(bench, form, say)
    rivals: list[Figure] = []
    for peer in peers:
        rivals += _measure_peer(peer, servers, form, say, versions=versions, folder=folder)
    if with_own:
        samples |= measure_own(servers, logs, handler, form, say)
    return figures_of(OURS, samples, versions) + rivals


def _measure_peer(
    name: str, servers: Servers, form: Form, say: Say, *, versions: dict[str, Any], folder: Path
) -> list[Figure]:
    """Measure one peer. When it cannot be run here, the reason is told and the run goes on without its figures."""
    try:
        peer = import_module(f"tests.benchmarks.peer_{name}")
        with peer.running(servers, folder / "bench-logs", folder / "peers") as rival:
            samples = measure(rival, form, say)
        return figures_of(name, samples, versions | peer.versions(folder / "peers"))
    except (ImportError, Unavailable, RuntimeError, OSError) as problem:
        say(f"{name}: not measured: {problem}")
        return []
