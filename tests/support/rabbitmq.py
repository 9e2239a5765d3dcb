"""A real RabbitMQ of one node, of Debian's packages, with everything of its own: node, ports, cookie, data.

It may be killed and started again on its ports, with what it has stored.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from amqp.exceptions import AMQPError
from kombu import Connection

from queues import rabbitmq
from tests.support.debian import free_port, unpacked
from tests.support.waiting import wait_until

ERLANG = (
    *("asn1", "base", "crypto", "eldap", "ftp", "inets", "mnesia", "os-mon", "parsetools", "public-key"),
    *("runtime-tools", "snmp", "ssl", "syntax-tools", "tftp", "tools", "xmerl"),
)
PACKAGES = ("rabbitmq-server", *(f"erlang-{part}" for part in ERLANG))
START_SECONDS = 120.0

ERL = """\
#!/bin/sh
export ROOTDIR={erlang} BINDIR={binaries} EMU=beam PROGNAME=erl
exec {binaries}/erlexec "$@"
"""
"""Debian's own looks for Erlang where it would be installed."""


class RabbitMQ:
    """One node.

    Args:
        directory: For all that it writes.
        settings: Of the Erlang application, by name, as Erlang terms; some cannot be set in its configuration.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        rabbitmq.use()  # before kombu has opened a connection, and remembers of which kind
        root = unpacked("rabbitmq", PACKAGES)
        terms = [f"-rabbit {name} {term}" for name, term in (settings or {}).items()]
        erlang = root / "usr/lib/erlang"
        [self._binaries] = erlang.glob("erts-*/bin")
        [home] = root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")
        self._program = home / "sbin/rabbitmq-server"
        self._directory = directory
        self._node: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        self.port, self._names_port, distribution_port = free_port(), free_port(), free_port()
        for folder in ("bin", "data", "log", "generated"):
            (directory / folder).mkdir(parents=True)
        erl = directory / "bin/erl"
        erl.write_text(ERL.format(erlang=erlang, binaries=self._binaries))
        erl.chmod(0o755)
        (directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        self._environment = {
            "PATH": f"{directory}/bin{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "HOME": str(directory),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{directory}/generated",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MNESIA_BASE": f"{directory}/data",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(terms),
            "RABBITMQ_PID_FILE": f"{directory}/pid",
        }

    @property
    def url(self) -> str:
        """Where it is."""
        return self.url_through(self.port)

    def url_through(self, port: int) -> str:
        """Give the address by which it is reached through another port of this machine."""
        return f"amqp://guest:guest@127.0.0.1:{port}//"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if self._names is None:
            # Without one that we start, Erlang starts one that nobody ends.
            self._names = self._launch(self._binaries / "epmd")
            wait_until(lambda: _listens(self._names_port), lambda: f"epmd to answer\n{self.log()}")
        self._node = self._launch(self._program)
        wait_until(self._answers, lambda: f"RabbitMQ to answer\n{self.log()}", within=START_SECONDS)

    def kill(self) -> None:
        """Kill it: every connection ends, and what it has not written to its disk is lost."""
        _kill(self._node)
        self._node = None

    def restart_empty(self) -> None:
        """Kill it and start it without anything that it had stored."""
        self.kill()
        shutil.rmtree(self._directory / "data")
        (self._directory / "data").mkdir()
        self.start()

    def close(self) -> None:
        """End it for good."""
        self.kill()
        _kill(self._names)
        self._names = None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, such as SIGSTOP and SIGCONT."""
        assert self._node is not None
        os.killpg(self._node.pid, number)

    def log(self) -> str:
        """Return the end of what it has said."""
        return (self._directory / "log.txt").read_text(errors="replace")[-4000:]

    def _launch(self, program: Path) -> subprocess.Popen[bytes]:
        with (self._directory / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._directory,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        assert self._node is not None
        assert self._node.poll() is None, f"RabbitMQ has ended\n{self.log()}"
        try:
            with Connection(self.url, connect_timeout=5) as connection:
                connection.connect()
        except (OSError, AMQPError):
            return False
        return True


@contextmanager
def broking(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[RabbitMQ]:
    """Run a RabbitMQ for a block. The test is skipped where there is none to be had."""
    made = RabbitMQ(directory, settings)
    try:
        made.start()
        yield made
    finally:
        made.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    """Kill a program with all it has started; it was made the first of a session of its own."""
    if process is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
