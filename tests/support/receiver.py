"""A server of somebody else: takes what is posted to it, answers as a test says, and can be down."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    content: bytes

    def json(self) -> dict[str, object]:
        """Decode the body."""
        value = orjson.loads(self.content)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered, and what happens before."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    first: Callable[[], object] = lambda: None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about callers that have not waited for their answer."""


class Receiver:
    """The server. `answer` gives the answer to each request; what came is in `received`."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer] = lambda _received: Answer()
        self.came = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    def reset(self) -> None:
        """Forget what came, answer 200 and be up."""
        self.received.clear()
        self.answer = lambda _received: Answer()
        self.open()

    def open(self) -> None:
        """Listen, on the same port as ever."""
        if self._server is not None:
            return
        self._server = _Server(("127.0.0.1", self.port), _handler_of(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop listening: whoever calls is refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, received: Received) -> Answer:
        """Keep a request and choose its answer."""
        with self.came:
            self.received.append(received)
            self.came.notify_all()
        answer = self.answer(received)
        answer.first()
        return answer

    def wait_for(self, count: int, within: float = 60.0) -> list[Received]:
        """Wait until so many requests have come; returns them."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.received) >= count, within), f"only {len(self.received)} came"
            return list(self.received)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(Received(path=self.path, headers=headers, content=content))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_arguments: object) -> None:
            """Keep quiet."""

    return Handler
