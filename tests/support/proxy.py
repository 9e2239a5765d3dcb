"""A TCP proxy on this machine, between two processes of a test, that can do what networks do.

Each connection has two pumps, one for each direction. What is held is neither lost nor reordered, as with TCP, which
sends again: when the network heals in time, the bytes arrive late.
"""

import math
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

CHUNK = 65536
LATENCY_SECONDS = (0.3, 0.7)
"""500 ms, plus or minus 200."""
PACKET = 1448
"""Bytes of a packet of Ethernet."""
LOST = 0.05
RETRANSMISSION_SECONDS = 0.2
"""The least that Linux waits before it sends a packet again; twice as long each time it is lost again."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection that is closed with a reset."""


class Trouble(StrEnum):
    """What a network does to those who use it."""

    BLACK_HOLE = "black hole"
    """Nothing arrives, in either direction; nobody is told."""
    ONE_WAY = "one-way cut"
    """Questions arrive, answers do not."""
    RESET = "reset"
    """Every connection is reset, and every new one at once."""
    LATENCY = "latency"
    """Every piece arrives 500 ms late, plus or minus 200."""
    LOSS = "5 % loss"
    """One packet in twenty is lost, and sent again by TCP: what was in it arrives late, and all behind it."""


class Proxy:
    """One link. Safe to use from several threads.

    Args:
        port: Of 127.0.0.1, where connections are led to.
        seed: Of the latency.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._target = port
        self._random = random.Random(seed)
        self._trouble: Trouble | None = None
        self._asked, self._answered = threading.Event(), threading.Event()
        self._asked.set()
        self._answered.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.carried = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def troubled(self, trouble: Trouble) -> Iterator[None]:
        """Have trouble for a block."""
        self.begin(trouble)
        try:
            yield
        finally:
            self.heal()

    def begin(self, trouble: Trouble) -> None:
        """Begin to make trouble, for the connections there are and for new ones."""
        self._trouble = trouble
        if trouble in {Trouble.BLACK_HOLE, Trouble.ONE_WAY}:
            self._answered.clear()
        if trouble is Trouble.BLACK_HOLE:
            self._asked.clear()
        if trouble is Trouble.RESET:
            self._reset_all()

    def heal(self) -> None:
        """Carry everything again; what was held goes on."""
        self._trouble = None
        self._asked.set()
        self._answered.set()

    def close(self) -> None:
        """End all connections, and take no more."""
        self.heal()
        self._listener.close()
        self._reset_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._trouble is Trouble.RESET:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            for source, sink, gate in ((client, server, self._asked), (server, client, self._answered)):
                threading.Thread(target=self._pump, args=(source, sink, gate), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        """Carry one direction, until one of the two ends closes."""
        try:
            while True:
                piece = source.recv(CHUNK)
                if delay := self._delay(piece):
                    time.sleep(delay)
                gate.wait()
                if not piece:
                    break
                sink.sendall(piece)
                self.carried += len(piece)
        except OSError:
            pass
        finally:
            with self._lock:
                is_ours = {source, sink} <= self._open  # or else the other pump, or a reset, ends them
                self._open -= {source, sink}
            for end in (source, sink) if is_ours else ():
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _delay(self, piece: bytes) -> float:
        """Say how many seconds later than on a sound link a piece arrives."""
        if self._trouble is Trouble.LATENCY:
            return self._random.uniform(*LATENCY_SECONDS)
        delay, again = 0.0, RETRANSMISSION_SECONDS
        if self._trouble is Trouble.LOSS and self._random.random() > (1 - LOST) ** math.ceil(len(piece) / PACKET):
            delay = again
            while self._random.random() < LOST:
                again *= 2
                delay += again
        return delay

    def _reset_all(self) -> None:
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _reset(end)


def _reset(end: socket.socket) -> None:
    """Close a connection so that the other end is told that something went wrong.

    A thread that waits in `recv` keeps the connection open behind our back, so it is woken first. Linux then sends the
    reset when the last user lets go.
    """
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        end.close()
