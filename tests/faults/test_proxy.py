"""Each trouble of the proxy does what its name says: a fault that does nothing would prove nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.proxy import LATENCY_SECONDS, RETRANSMISSION_SECONDS, Proxy, Trouble

pytestmark = pytest.mark.fault

SOON = 0.3


@pytest.fixture
def heard() -> list[bytes]:
    """What the echo has been told."""
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Proxy]:
    """A link to a server that answers with what it is told."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        with connection, suppress(ConnectionResetError):
            while piece := connection.recv(100):
                heard.append(piece)
                connection.sendall(piece)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    link = Proxy(listener.getsockname()[1])
    yield link
    link.close()
    listener.close()


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def test_a_sound_link_carries_both_ways(proxy: Proxy) -> None:
    with _connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(10) == b"a"


@pytest.mark.parametrize(("trouble", "arrives"), [(Trouble.BLACK_HOLE, False), (Trouble.ONE_WAY, True)])
def test_what_is_held_arrives_after_the_healing(
    proxy: Proxy, heard: list[bytes], trouble: Trouble, arrives: bool
) -> None:
    with _connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(10) == b"a"
        with proxy.troubled(trouble):
            client.sendall(b"b")
            client.settimeout(SOON)
            with pytest.raises(TimeoutError):
                client.recv(10)
            assert (heard == [b"a", b"b"]) is arrives
        client.settimeout(10)
        assert client.recv(10) == b"b"


def test_a_reset_ends_old_and_new_connections(proxy: Proxy) -> None:
    with _connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(10) == b"a"
        with proxy.troubled(Trouble.RESET):
            with pytest.raises(ConnectionResetError):
                client.recv(10)
            with pytest.raises(ConnectionResetError), _connect(proxy) as fresh:
                fresh.recv(10)
    with _connect(proxy) as client:
        client.sendall(b"c")
        assert client.recv(10) == b"c"


def test_latency_delays_each_direction(proxy: Proxy) -> None:
    with _connect(proxy) as client, proxy.troubled(Trouble.LATENCY):
        began = time.monotonic()
        client.sendall(b"a")
        assert client.recv(10) == b"a"
        assert time.monotonic() - began >= 2 * LATENCY_SECONDS[0]


def test_loss_delays_one_packet_in_twenty(proxy: Proxy) -> None:
    pieces, late = 200, 0
    with _connect(proxy) as client, proxy.troubled(Trouble.LOSS):
        for _ in range(pieces):
            began = time.monotonic()
            client.sendall(b"a")
            assert client.recv(10) == b"a"
            late += time.monotonic() - began >= RETRANSMISSION_SECONDS
    assert 5 <= late <= 40, "of 200 there and back, 20 are expected"
