"""The supervisor with small children, and `orchestrator dev` around it: readiness, restarts, and no process left."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import embedded
from orchestrator.dev import KEY_VARIABLES, Backoff, ChildSpec, DevOptions, LinePrinter, Supervisor, child_specs, run
from orchestrator.embedded import home, processes
from orchestrator.embedded.processes import Deadline, Process

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = Backoff(first=0.01, longest=0.05)
SLEEPER = "import time; print('hello', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("grandchild", child.pid, flush=True)
time.sleep(600)
"""


class Screen(io.StringIO):
    """What was printed so far."""

    def wait_for(self, text: str, *, times: int = 1) -> str:
        must_become_true(lambda: self.getvalue().count(text) >= times, f"{times} x {text!r} in {self.getvalue()!r}")
        return self.getvalue()


def must_become_true(question: Callable[[], bool], what: str = "") -> None:
    deadline = Deadline.after(60)
    while not question():
        assert not deadline.is_over, what
        time.sleep(0.01)


def must_end(process: Process | None) -> None:
    assert process is None or processes.wait_for_end(process, Deadline.after(60)), f"{process} still runs"


def python(name: str, code: str, *, stop_seconds: float = 8.0, ready: Callable[[], bool] | None = None) -> ChildSpec:
    return ChildSpec(name=name, argv=(sys.executable, "-c", code), stop_seconds=stop_seconds, ready=ready)


def named(pid: int | None) -> Process:
    assert pid is not None
    found = processes.identify(pid)
    assert found is not None
    return found


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def supervise(screen: Screen) -> Iterator[Callable[..., Supervisor]]:
    """Start supervisors that are stopped after the test."""
    made: list[Supervisor] = []

    def make(*specs: ChildSpec, restart: bool = True) -> Supervisor:
        printer = LinePrinter(("dev", *(spec.name for spec in specs)), screen, color=False)
        made.append(Supervisor(specs, printer=printer, backoff=QUICK, restart=restart))
        made[-1].start()
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop_hard()
        supervisor.stop()


def test_lines_are_aligned_under_the_name_of_their_child(supervise, screen) -> None:
    supervise(python("api", "print('one'); print('two')"), python("service", SLEEPER), restart=False)
    screen.wait_for("service | hello")
    lines = screen.wait_for("two").splitlines()
    assert [line for line in lines if line.startswith("api")] == ["api     | one", "api     | two"]


def test_each_child_has_a_log_file_and_a_colour(tmp_path: Path) -> None:
    screen = Screen()
    printer = LinePrinter(("api", "worker"), screen, directory=tmp_path, color=True)
    printer.line("api", "one")
    printer.line("worker", "two")
    printer.close()
    printer.line("api", "late")
    assert (tmp_path / "api.log").read_text() == "one\n"
    assert "\x1b[36mapi    | \x1b[0mone" in screen.getvalue()
    assert "\x1b[33mworker | \x1b[0mtwo" in screen.getvalue()


def test_children_are_ready_when_their_probes_say_so(supervise, tmp_path: Path) -> None:
    code = f"import pathlib, time; pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(600)"
    children = supervise(python("api", code, ready=(tmp_path / "up").exists), python("worker", SLEEPER))
    assert children.wait_ready(60) == ()


def test_a_child_can_be_ready_by_saying_so(supervise, screen, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        f"while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)\n"
        "print('worker@here ready.', flush=True); time.sleep(600)"
    )
    spec = ChildSpec(name="worker", argv=(sys.executable, "-c", code), ready_text="@here ready.")
    children = supervise(spec)
    assert children.wait_ready(0.1) == ("worker",)
    (tmp_path / "go").touch()
    assert children.wait_ready(60) == ()


def test_children_that_are_not_ready_in_time_are_named(supervise) -> None:
    children = supervise(python("api", SLEEPER, ready=lambda: False), python("worker", SLEEPER))
    assert children.wait_ready(0.1) == ("api",)
    assert children.wait_ready(60, give_up=lambda: True) == ("api",)


def test_a_child_that_dies_is_started_again(supervise, screen) -> None:
    children = supervise(python("worker", SLEEPER))
    first = named(children.pid("worker"))
    children.kill("worker")
    screen.wait_for("worker was ended by SIGKILL; starting it again in")
    must_become_true(lambda: children.pid("worker") not in {None, first.pid})
    screen.wait_for("worker was started again")
    assert children.starts("worker") == 2


def test_a_child_that_keeps_dying_waits_longer_each_time(supervise, screen) -> None:
    supervise(python("worker", "raise SystemExit(3)"))
    for delay in ("0.01", "0.02", "0.04", "0.05"):
        screen.wait_for(f"worker ended with status 3; starting it again in {delay} s")


def test_back_off_is_forgiven_and_never_overflows() -> None:
    assert [Backoff().delay(deaths) for deaths in (1, 2, 6, 10_000)] == [0.5, 1.0, 15.0, 15.0]


def test_without_restart_a_dead_child_stays_down(supervise, screen) -> None:
    children = supervise(python("worker", "print('bye')"), restart=False)
    screen.wait_for("worker ended with status 0")
    assert children.pid("worker") is None


def test_a_program_that_is_missing_is_an_error_and_leaves_nothing(screen) -> None:
    specs = (python("api", SLEEPER), ChildSpec(name="worker", argv=("/no/such/program",)))
    supervisor = Supervisor(specs, printer=LinePrinter((), screen, color=False))
    with pytest.raises(FileNotFoundError), supervisor:
        pass
    assert supervisor.pid("api") is None


def test_stop_ends_all_children_and_twice_is_fine(supervise) -> None:
    children = supervise(*(python(f"worker-{number}", SLEEPER) for number in range(3)))
    running = [named(children.pid(name)) for name in children.names]
    children.stop()
    assert not any(process.is_alive for process in running)
    children.stop()


def test_a_child_that_does_not_listen_is_killed(supervise, screen) -> None:
    children = supervise(python("worker", STUBBORN, stop_seconds=0.2))
    screen.wait_for("deaf")
    process = named(children.pid("worker"))
    children.stop()
    assert not process.is_alive
    assert "worker did not end in time and is killed" in screen.getvalue()


def test_a_hard_stop_does_not_wait(supervise, screen) -> None:
    children = supervise(python("worker", STUBBORN, stop_seconds=600))
    screen.wait_for("deaf")
    process = named(children.pid("worker"))
    children.stop_hard()
    children.stop()
    assert not process.is_alive


def test_a_paused_child_can_be_stopped(supervise) -> None:
    children = supervise(python("worker", SLEEPER))
    process = named(children.pid("worker"))
    children.kill("worker", signal.SIGSTOP)
    children.stop()
    assert not process.is_alive


def test_grandchildren_end_with_a_killed_child(supervise, screen) -> None:
    children = supervise(python("worker", PARENT), restart=False)
    grandchild = named(int(screen.wait_for("grandchild ").split()[-1]))
    children.kill("worker")
    must_end(grandchild)


def test_one_child_can_be_stopped_started_and_restarted(supervise) -> None:
    children = supervise(python("api", SLEEPER), python("worker", SLEEPER))
    untouched, first = children.pid("api"), children.pid("worker")
    children.stop_child("worker")
    assert children.pid("worker") is None
    assert children.wait_ready(60) == ()
    children.start_child("worker")
    second = children.pid("worker")
    children.restart("worker")
    assert len({None, first, second, children.pid("worker")}) == 4
    assert children.pid("api") == untouched


def test_a_child_sees_the_environment_of_supervisor_and_spec(screen) -> None:
    code = "import os; print(os.environ['DATABASE_URL'], os.environ['MODE'], 'MISSING' in os.environ)"
    spec = ChildSpec(name="api", argv=(sys.executable, "-c", code), env={"MODE": "test"})
    printer = LinePrinter(("api",), screen, color=False)
    with Supervisor([spec], env={"DATABASE_URL": "here"}, printer=printer, restart=False):
        screen.wait_for("here test False")


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    script = f"""
        import sys, threading
        from orchestrator.dev import ChildSpec, Supervisor
        specs = [ChildSpec(name="worker", argv=(sys.executable, "-c", {PARENT!r})),
                 ChildSpec(name="deaf", argv=(sys.executable, "-c", {STUBBORN!r}))]
        children = Supervisor(specs)
        thread = threading.Thread(target=children.start)  # the thread that starts them may end before the process
        thread.start()
        thread.join()
        print("pids", *(children.pid(name) for name in children.names), flush=True)
        threading.Event().wait()
    """
    supervisor = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    pids: list[int] = []
    while len(pids) < 3:
        line = supervisor.stdout.readline()
        assert line
        pids += [int(word) for word in line.split() if word.isdigit() and ("pids" in line or "grandchild" in line)]
    running = [named(pid) for pid in pids]
    supervisor.kill()
    supervisor.communicate()
    for process in running:
        must_end(process)


# orchestrator dev


@pytest.fixture
def directory() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    parent.chmod(0o711)
    yield parent / "home"
    embedded.remove(parent / "home")
    shutil.rmtree(parent)


class Dev:
    """`orchestrator dev` with two small children, in a process of its own."""

    SCRIPT = """
        import http.server, pathlib, sys
        from orchestrator.dev import ChildSpec, DevOptions, answers, run
        port, directory = int(sys.argv[1]), pathlib.Path(sys.argv[2])
        api = f"from http.server import *; HTTPServer(('127.0.0.1', {port}), SimpleHTTPRequestHandler).serve_forever()"
        worker = '''import os, redis, psycopg2
        from orchestrator import embedded
        redis.Redis.from_url(os.environ["REDIS_URL"]).ping()
        redis.Redis.from_url(os.environ["BROKER_URL"]).ping()
        psycopg2.connect(embedded.without_driver(os.environ["DATABASE_URL"]))
        print("worker is here", flush=True)
        __import__("time").sleep(600)'''.replace("\\n        ", "\\n")
        def specs(options):
            yield ChildSpec(name="api", argv=(sys.executable, "-c", api), ready=lambda: answers(f"http://127.0.0.1:{port}"))
            yield ChildSpec(name="worker", argv=(sys.executable, "-c", worker))
        def migrate(url):
            print("migrated", url, flush=True)
        options = DevOptions(data_dir=directory, api_port=port, migrate=migrate)
        sys.exit(run(options, specs=lambda options: tuple(specs(options))))
    """

    def __init__(self, directory: Path) -> None:
        self.port = home.free_port()
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.SCRIPT), str(self.port), str(directory)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        while text not in self.said:
            line = self.process.stdout.readline()
            assert line, f"ended before saying {text!r}: {self.said}"
            self.said += line
        return self.said

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=90)[0]
        return self.process.returncode


@pytest.fixture
def dev(directory: Path) -> Iterator[Callable[[], Dev]]:
    made: list[Dev] = []

    def begin() -> Dev:
        made.append(Dev(directory))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def listener(port: int) -> str:
    """What only the command line of the API names: a bare number may be a part of anybody's."""
    return f"('127.0.0.1', {port})"


def processes_about(*marks: str) -> list[bytes]:
    """Command lines that name one of these."""
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return [command for command in commands if any(mark.encode() in command for mark in marks)]


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_linux
def test_dev_says_where_everything_is_and_ends_on_one_ctrl_c(dev, directory: Path) -> None:
    running = dev()
    said = running.read_until("Ctrl-C ends everything")
    assert said.index("migrated postgresql+psycopg2://") < said.index("orchestrator is ready after")
    for part in (f"http://127.0.0.1:{running.port}", "postgresql://orchestrator@/", "redis://:***@", str(directory)):
        assert part in said
    running.read_until("worker is here")
    assert running.end(signal.SIGINT) == 0
    must_become_true(lambda: not processes_about(str(directory), listener(running.port)))
    assert not (directory / "running.json").exists()
    assert "worker is here" in (directory / "logs" / "worker.log").read_text()


@needs_linux
def test_dev_recovers_from_being_killed(dev, directory: Path) -> None:
    first = dev()
    first.read_until("Ctrl-C ends everything")
    first.end(signal.SIGKILL)
    second = dev()
    second.read_until("orchestrator is ready after")
    assert second.end(signal.SIGTERM) == 0
    must_become_true(lambda: not processes_about(str(directory), listener(first.port), listener(second.port)))


@needs_linux
def test_dev_can_be_interrupted_before_it_is_ready(dev, directory: Path) -> None:
    running = dev()
    must_become_true((directory / "settings.json").exists)
    assert running.end(signal.SIGINT) == 0
    must_become_true(lambda: not processes_about(str(directory), listener(running.port)))


def test_dev_names_a_port_that_is_taken(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(DevOptions(data_dir=directory, api_port=port)) == 1
    assert f"port {port} is in use; choose another one with --port" in capsys.readouterr().err
    assert not directory.exists()


def test_options_become_command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEY_VARIABLES, "ORCH8_REQUIRE_TENANT_HEADER"):
        monkeypatch.delenv(name, raising=False)
    options = DevOptions(
        api_port=9000, workers=2, queues=("default", "gpu"), concurrency=3, imports=("a", "b"), flower=True
    )
    specs = {spec.name: spec for spec in child_specs(options)}
    assert list(specs) == ["api", "service", "worker-1", "worker-2", "flower"]
    api = ("-m", "orchestrator.cli", "api", "--host", "127.0.0.1", "--port", "9000", "--insecure")
    assert specs["api"].argv[1:] == api
    assert specs["api"].env["ORCH8_REQUIRE_TENANT_HEADER"] == "false"
    worker = " ".join(specs["worker-2"].argv[1:])
    assert worker.startswith("-m orchestrator.cli worker --quiet --name worker-2-")
    assert worker.endswith("--queues default,gpu --concurrency 3 --import a --import b")
    assert specs["flower"].env == {"FLOWER_UNAUTHENTICATED_API": "true"}
    assert " ".join(specs["flower"].argv[1:]) == "-m orchestrator.cli flower --host 127.0.0.1 --port 5555"


def test_an_empty_variable_asks_for_no_tenants_in_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCH8_REQUIRE_TENANT_HEADER", "")
    assert child_specs(DevOptions())[0].env["ORCH8_REQUIRE_TENANT_HEADER"] == "false"


def test_a_key_of_the_user_is_asked_for_in_dev_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_API_KEY", "secret")
    api = child_specs(DevOptions())[0]
    assert "--insecure" not in api.argv
    assert "ORCH8_REQUIRE_TENANT_HEADER" not in api.env
