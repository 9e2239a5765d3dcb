"""A provider of OAuth2 tokens on this machine, which tests can break."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


@dataclass
class TokenServer:
    """What the provider has seen, and what it answers next.

    Attributes:
        forms: The forms that were posted, in order.
        status: Of its answers.
        answer: Their body; the token of the n-th answer is `token-n`.
        gate: Answers wait until it is set.
    """

    url: str = ""
    forms: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    answer: dict[str, Any] = field(default_factory=lambda: {"expires_in": 3600})
    gate: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)


@contextmanager
def token_server() -> Iterator[TokenServer]:
    """Run a provider."""
    state = TokenServer()
    state.gate.set()

    class Provider(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            state.forms.append({name: values[0] for name, values in parse_qs(raw).items()})
            number = len(state.forms)
            state.asked.set()
            state.gate.wait(60)
            body = json.dumps({"access_token": f"token-{number}", **state.answer}).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/token"
    try:
        yield state
    finally:
        state.gate.set()
        server.shutdown()
        server.server_close()
