"""The demo as a user starts it: it ends well, it leaves nothing behind, and Ctrl-C ends all of it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from orchestrator import embedded

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = 160
BAD = {7: "print 'old'\n", 8: "def f(:\n", 90: "x = '\0'\n", 150: "(\n"}
"""Two of them next to one another, so that they are in their catch lists at once."""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Enough work for a worker to be in the middle of it when it is killed."""
    folder = tmp_path / "library"
    folder.mkdir()
    function = "def f{}(a, b):\n    '''Do.'''\n    return [x for x in a if x and b]\n"
    text = "".join(function.format(number) for number in range(400))
    for number in range(MODULES):
        (folder / f"m{number:03}.py").write_text(BAD.get(number, text))
    return folder


@pytest.fixture
def directory() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="orchestrator-demo-"))
    parent.chmod(0o711)
    yield parent / "demo"
    embedded.remove(parent / "demo")
    shutil.rmtree(parent)


def begin(directory: Path, source: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workers.demo", "--directory", str(directory), "--source", str(source)]
    foreign = {"ORCH8_API_KEY": "another installation's", "DATABASE_URL": "postgresql://nowhere/x"}
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | foreign,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_about(mark: str) -> list[bytes]:
    """Command lines or environments that name the directory of the demo."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(folder / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:
            continue
        if any(mark.encode() in text for text in texts) and folder.name != str(os.getpid()):
            found.append(texts[0])
    return found


def must_leave_nothing(directory: Path) -> None:
    deadline = time.monotonic() + 90
    while left := processes_about(str(directory)):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@needs_linux
def test_the_demo_survives_and_says_so_truly(directory: Path, source: Path) -> None:
    demo = begin(directory, source)
    said = demo.communicate(timeout=240)[0]
    assert demo.returncode == 0, said
    must_leave_nothing(directory)
    for line in (
        f"documents indexed      {MODULES - len(BAD)}\n",
        f"quarantined            {len(BAD)}\n",
        "killed worker-gpu and its processes with SIGKILL",
        "emptied Redis with FLUSHALL",
        "started a replacement worker",
        "the instance waits for a person: 'The index is complete. Publish it?'",
        "answered 'publish' through the API",
        "time lost to the kill",
        "steps per second",
    ):
        assert line in said
    assert "NOT TRUE" not in said
    assert "\x1b" not in said, "plain lines outside of a terminal"
    report = orjson.loads((directory / "report" / "library-index.json").read_bytes())
    assert {entry["path"] for entry in report["quarantined"]} == {f"m{number:03}.py" for number in BAD}
    assert len(report["modules"]) == MODULES - len(BAD)
    assert "m000" in (directory / "report" / "library-index.html").read_text()


@needs_linux
def test_ctrl_c_ends_everything(directory: Path, source: Path) -> None:
    demo = begin(directory, source)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "modules:" in line:
            break
    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGINT)  # an impatient second one must not cut short the cleaning up
    said = demo.communicate(timeout=120)[0]
    assert demo.returncode == 130, said
    assert "interrupted; everything that was started has ended" in said
    must_leave_nothing(directory)


@needs_linux
def test_a_source_that_is_missing_is_no_success(directory: Path, tmp_path: Path) -> None:
    demo = begin(directory, tmp_path / "nothing")
    said = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1, said
    assert "the demo could not be finished: the instance is failed" in said
    must_leave_nothing(directory)
