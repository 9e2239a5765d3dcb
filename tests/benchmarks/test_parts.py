"""The parts of the benchmark that need no servers: the fit, the guard's floors, peers that are not there."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.benchmarks import installing, run
from tests.benchmarks.growth import SHAPES, Model, Point, fit, lines_of
from tests.benchmarks.guard import GUARDED, lost, ratios
from tests.benchmarks.processes import family, usage
from tests.benchmarks.wire import Connection, spread
from tests.benchmarks.works import SHORT, Chain


def points(model: Model, noise: float = 0.0) -> list[Point]:
    """Make the points a model predicts, every second one too slow by some part and the others too fast."""
    found = []
    for number, (instances, steps, kilobytes) in enumerate(SHAPES * 2):
        workers = 1 + number // len(SHAPES)
        bare = Point(instances=instances, steps=steps, kilobytes=kilobytes, workers=workers, seconds=1.0)
        seconds = model.predict(bare) * (1 + noise * (-1) ** number)
        found.append(Point(instances=instances, steps=steps, kilobytes=kilobytes, workers=workers, seconds=seconds))
    return found


def test_fit_finds_the_model_behind_the_points() -> None:
    pytest.importorskip("numpy")
    model = Model(instance=0.001, step=0.0003, megabyte=0.02, gain=0.6)
    found = fit(points(model))
    assert (found.instance, found.step, found.megabyte) == pytest.approx((0.001, 0.0003, 0.02))
    assert found.gain == 0.6


def test_fit_of_noisy_points_predicts_them_and_costs_nothing_negative() -> None:
    pytest.importorskip("numpy")
    noisy = points(Model(instance=0.0, step=0.0003, megabyte=0.0, gain=0.9), noise=0.1)
    found = fit(noisy)
    assert min(found.instance, found.step, found.megabyte) >= 0
    assert max(abs(found.error(point)) for point in noisy) < 0.2
    assert f"{len(noisy)} of {len(noisy)} points within 20%" in lines_of(found, noisy)[-1]


class Paced:
    """An engine whose every other repeat is slowed down by the machine."""

    engine = "paced"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls = 0

    def _took(self) -> float:
        self._calls += 1
        return self._seconds * (1 + 20 * (self._calls % 2))

    def throughput(self) -> float:
        return 1 / self._took()

    def chain(self) -> Chain:
        took = self._took()
        return Chain(accepted=0.0, ended=[took, 2 * took])

    def fan_out(self) -> float:
        return self._took()

    def long_chain(self) -> Chain:
        return self.chain()


def test_guard_compares_the_best_repeats_and_names_what_was_lost() -> None:
    fine, slow = ratios(Paced(0.01), Paced(0.03)), ratios(Paced(0.03), Paced(0.01))
    assert lost(fine) == []
    assert lost(slow) == [guarded.name for guarded in GUARDED]


def test_peer_that_is_not_there_is_named_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []

    def missing(*_arguments: object) -> Any:
        raise installing.Unavailable("npm is not installed")

    monkeypatch.setitem(sys.modules, "tests.benchmarks.peer_gone", SimpleNamespace(running=missing))
    figures = run._measure_peer("gone", None, SHORT, said.append, versions={}, folder=tmp_path)  # type: ignore[arg-type]
    assert figures == []
    assert said == ["gone: not measured: npm is not installed"]


@pytest.mark.bench
def test_package_that_cannot_be_installed_gives_the_reason(tmp_path: Path) -> None:
    with pytest.raises(installing.Unavailable, match=r"pip|python"):
        installing.environment(tmp_path / "peer", [str(tmp_path / "no-such-file.whl")])
    assert not (tmp_path / "peer" / ".complete").exists()


class Answers(BaseHTTPRequestHandler):
    """Answers in one piece, in chunks, or with an error, as the path says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500 if self.path == "/bad" else 200)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (body[:2], body[2:]):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_client_reads_answers_in_one_piece_and_in_chunks_over_one_connection() -> None:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    connection = Connection(server.server_port)
    try:
        for path in ("/whole", "/chunks", "/whole"):
            assert connection.post(path, {"asked": path}) == {"asked": path}
        with pytest.raises(RuntimeError, match="500"):
            spread([connection], ["/bad"], lambda each, path: each.post(path, {}))
    finally:
        connection.close()
        server.shutdown()
        server.server_close()
        thread.join()


def test_usage_counts_living_processes_only() -> None:
    import os

    assert os.getpid() in family([os.getpid()])
    assert usage([os.getpid()]).bytes > 1_000_000
    assert usage([2**22 + 1]).bytes == 0
