"""A small HTTP client that costs little: what is measured shares its cores with it."""

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

TENANT = "bench"
TIMEOUT_SECONDS = 60.0
T = TypeVar("T")


class Connection:
    """One kept connection to one API process; for one thread at a time."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", tenant: str = TENANT) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self._head = f"Host: {host}:{port}\r\nX-Tenant-Id: {tenant}\r\nAccept: application/json\r\n"
        self._head += "Content-Type: application/json\r\n"

    def post(self, path: str, body: Any) -> Any:
        """Send a body; see `request`."""
        return self.request("POST", path, orjson.dumps(body))

    def get(self, path: str) -> Any:
        """Ask for something; see `request`."""
        return self.request("GET", path, b"")

    def request(self, method: str, path: str, content: bytes) -> Any:
        """Send one request; returns the JSON of its answer, None for an empty one.

        Raises:
            RuntimeError: The answer is not one of success.
        """
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        self._socket.sendall(head.encode() + content)
        return self._answer(path)

    def close(self) -> None:
        """Give the connection back."""
        self._socket.close()

    def _answer(self, path: str) -> Any:
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if fields.get("transfer-encoding") == "chunked":
            body = self._chunks()
        else:
            body = self._exactly(int(fields.get("content-length", 0)))
        if not head[0].split()[1].startswith("2"):
            raise RuntimeError(f"{path} is answered by {head[0]!r}: {body[:500]!r}")
        return orjson.loads(body) if body else None

    def _chunks(self) -> bytes:
        read = b""
        while size := int(self._until(b"\r\n"), 16):
            read += self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")
        return read

    def _until(self, mark: bytes) -> bytes:
        """Take what comes before a mark, and the mark away."""
        while mark not in self._read:
            self._read += self._more()
        taken, _, self._read = self._read.partition(mark)
        return taken

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._read += self._more()
        taken, self._read = self._read[:size], self._read[size:]
        return taken

    def _more(self) -> bytes:
        found = self._socket.recv(65536)
        if not found:
            raise RuntimeError("the API has closed the connection")
        return found


def spread(connections: Sequence[Connection], things: Sequence[T], send: Callable[[Connection, T], Any]) -> None:
    """Send the things, each connection taking the next one as soon as it is free; the first problem is raised."""
    left, problems, lock = iter(things), [], threading.Lock()

    def work(connection: Connection) -> None:
        try:
            while not problems:
                with lock:
                    thing = next(left)
                send(connection, thing)
        except StopIteration:
            pass
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
