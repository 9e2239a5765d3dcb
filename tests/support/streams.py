"""Readers of event streams, for tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One event as a client has read it."""

    name: str
    data: Any
    id: str | None = None


def events_in(lines: Iterator[str]) -> Iterator[Seen | str]:
    """Read events from the lines of a stream; comments come as they are written."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and fields:
            yield Seen(name=fields["event"], data=json.loads(fields["data"]), id=fields.get("id"))
            fields = {}
        elif line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value


@contextmanager
def stream(http: httpx.Client, path: str, **headers: str) -> Iterator[Iterator[Seen | str]]:
    """Open a stream that must be answered with 200."""
    with http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        yield events_in(answer.iter_lines())
