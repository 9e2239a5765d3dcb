"""Many HTTP workers in one thread: a worker of a thread of its own would wait for the others' turns at the interpreter.

Each worker has a connection, and one request on its way: a poll, or the completion of the task that this gave it.
"""

import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

from tests.benchmarks.wire import TENANT, TIMEOUT_SECONDS

PAUSE_SECONDS = 0.02
"""Between two polls when there is no task."""


class Worker:
    """One worker, and the request it waits for.

    Attributes:
        is_completing: Whether its request is a completion, not a poll.
        sent_at: When its request was sent.
    """

    def __init__(
        self, port: int, name: str, *, handler: str, queue: str, host: str = "127.0.0.1", tenant: str = TENANT
    ) -> None:
        self.name = name
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_completing = False
        self.sent_at = 0.0
        self._read = b""
        self._head = f"Host: {host}:{port}\r\nX-Tenant-Id: {tenant}\r\nContent-Type: application/json\r\n"
        wish = {"handler_name": handler, "queue_name": queue, "worker_id": name}
        self._poll = self._request("/workers/tasks/poll/queue", wish)

    def poll(self) -> None:
        """Ask for a task."""
        self.is_completing = False
        self._send(self._poll)

    def complete(self, task: dict[str, Any], output: Any) -> None:
        """Report a task as done."""
        self.is_completing = True
        body = {"worker_id": self.name, "claim_epoch": task["claim_epoch"], "output": output}
        self._send(self._request(f"/workers/tasks/{task['id']}/complete", body))

    def take(self) -> tuple[int, Any] | None:
        """Read what has come: status and body of an answer once all of it is there, with None for an empty body.

        Raises:
            RuntimeError: The server has closed the connection.
        """
        found = self.socket.recv(1 << 18)
        if not found:
            raise RuntimeError(f"the API has closed the connection of {self.name}")
        self._read += found
        head, mark, body = self._read.partition(b"\r\n\r\n")
        if not mark:
            return None
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return None
        self._read = b""
        return int(head[9:12]), orjson.loads(body) if body else None

    def _request(self, path: str, body: Any) -> bytes:
        content = orjson.dumps(body)
        head = f"POST /api/v1{path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    def _send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)


class Fleet:
    """Workers at work.

    Attributes:
        polls: Milliseconds from the sending of each poll that gave a task to the end of its answer.
        completions: The same for completions.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._selector = selectors.DefaultSelector()
        for worker in workers:
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self.polls: list[float] = []
        self.completions: list[float] = []
        self._resting: deque[tuple[float, Worker]] = deque()

    def work(self, count: int) -> None:
        """Work until so many tasks are completed."""
        for worker in self._workers:
            worker.poll()
        while len(self.completions) < count:
            for key, _ in self._selector.select(PAUSE_SECONDS / 4):
                if (answer := key.data.take()) is not None:
                    self._go_on(key.data, *answer)
            while self._resting and self._resting[0][0] <= time.perf_counter():
                self._resting.popleft()[1].poll()

    def _go_on(self, worker: Worker, status: int, answer: Any) -> None:
        now = time.perf_counter()
        took = (now - worker.sent_at) * 1000
        if status != 200:
            raise RuntimeError(f"{worker.name} is answered by {status}: {answer!r}")
        if worker.is_completing:
            self.completions.append(took)
            worker.poll()
        elif answer:
            self.polls.append(took)
            worker.complete(answer[0], {"by": worker.name})
        else:
            self._resting.append((now + PAUSE_SECONDS, worker))

    def close(self) -> None:
        """Close all connections."""
        self._selector.close()
        for worker in self._workers:
            worker.socket.close()
