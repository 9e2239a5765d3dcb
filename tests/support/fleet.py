"""Many HTTP workers in one thread: with threads of their own they would wait for each other's turns at the interpreter.

Each worker has a connection, and one request on its way: a poll, or the completion of the task that this gave it.
"""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

ANSWER_SECONDS = 120.0
PAUSE_SECONDS = 0.02
"""Between two polls when there is no task."""


class Worker:
    """One worker, and the request it waits for.

    Args:
        port: Of the API, on this machine.
        life: Tasks that it completes before it dies; None for any number.
        leaves: Whether it dies before it has read the answer to a poll; else it keeps the task that this gives it.

    Attributes:
        is_completing: Whether its request is a completion, not a poll.
        sent_at: When its request was sent.
        completed: Tasks it has completed.
    """

    def __init__(
        self,
        port: int,
        name: str,
        *,
        tenant: str,
        handler: str,
        queue: str,
        life: int | None = None,
        leaves: bool = False,
    ) -> None:
        self.name = name
        self.life = life
        self.leaves = leaves
        self.is_completing = False
        self.sent_at = 0.0
        self.completed = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self._head = f"Host: 127.0.0.1:{port}\r\nX-Tenant-Id: {tenant}\r\nContent-Type: application/json\r\n"
        wish = {"handler_name": handler, "queue_name": queue, "worker_id": name}
        self._poll = self._request("/workers/tasks/poll/queue", wish)

    @property
    def is_at_its_end(self) -> bool:
        """Tell whether it dies with its next poll."""
        return self.completed == self.life

    def poll(self) -> None:
        """Ask for a task."""
        self.is_completing = False
        self._send(self._poll)

    def complete(self, task: dict[str, Any]) -> None:
        """Report a task as done, by this worker."""
        self.is_completing = True
        body = {"worker_id": self.name, "claim_epoch": task["claim_epoch"], "output": {"by": self.name}}
        self._send(self._request(f"/workers/tasks/{task['id']}/complete", body))

    def take(self) -> tuple[int, Any] | None:
        """Read what has come: status and body of an answer once all of it is there, with None for an empty body.

        Raises:
            ConnectionError: The server has closed the connection.
        """
        found = self.socket.recv(1 << 18)
        if not found:
            raise ConnectionError(f"the API has closed the connection of {self.name}")
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
    """Workers, and what they have seen.

    Attributes:
        handouts: Task and epoch of each handout that a worker has read.
        polls: Milliseconds from the sending of each poll that gave a task until all of its answer had come.
        completions: The same for completions.
        finished: Tasks whose completion was accepted, with the worker.
        refused: Answers to completions that were not.
        held: Tasks that died with their workers, as these knew them.
        dead: Names of the workers that have died.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.handouts: list[tuple[str, int]] = []
        self.polls: list[float] = []
        self.completions: list[float] = []
        self.finished: list[tuple[str, str]] = []
        self.refused: list[tuple[int, Any]] = []
        self.held: list[dict[str, Any]] = []
        self.dead: set[str] = set()
        self._workers = workers
        self._selector = selectors.DefaultSelector()
        for worker in workers:
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self._tasks: dict[str, str] = {}
        self._resting: deque[tuple[float, Worker]] = deque()
        self._end = threading.Event()

    def work(self, count: int | None = None) -> None:
        """Work until so many tasks are completed, or `stop` is called; then all connections are closed."""
        for worker in self._workers:
            self._ask(worker)
        while not self._end.is_set() and len(self.finished) != count:
            for key, _ in self._selector.select(PAUSE_SECONDS / 4):
                if (answer := key.data.take()) is not None:
                    self._go_on(key.data, *answer)
            while self._resting and self._resting[0][0] <= time.perf_counter():
                self._ask(self._resting.popleft()[1])
        self._selector.close()
        for worker in self._workers:
            worker.socket.close()

    def stop(self) -> None:
        """Let the workers end; from any thread."""
        self._end.set()

    def _ask(self, worker: Worker) -> None:
        worker.poll()
        if worker.is_at_its_end and worker.leaves:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        self._selector.unregister(worker.socket)
        worker.socket.close()
        self.dead.add(worker.name)

    def _go_on(self, worker: Worker, status: int, answer: Any) -> None:
        now = time.perf_counter()
        took = (now - worker.sent_at) * 1000
        if worker.is_completing:
            self.completions.append(took)
            if status == 200:
                self.finished.append((self._tasks[worker.name], worker.name))
            else:
                self.refused.append((status, answer))
            worker.completed += 1
            self._ask(worker)
        elif status != 200:
            raise AssertionError(f"a poll of {worker.name} is answered by {status}: {answer!r}")
        elif answer:
            [task] = answer
            self.polls.append(took)
            self.handouts.append((task["id"], task["claim_epoch"]))
            if worker.is_at_its_end:
                self.held.append(task)
                self._bury(worker)
            else:
                self._tasks[worker.name] = task["id"]
                worker.complete(task)
        else:
            self._resting.append((now + PAUSE_SECONDS, worker))
