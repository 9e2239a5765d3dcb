"""Puts the report where readers find it: each file appears whole or not at all."""

import os
from pathlib import Path
from typing import Any

import orjson

HTML_NAME = "library-index.html"
JSON_NAME = "library-index.json"


def publish(directory: Path, report: dict[str, Any], page: str) -> dict[str, Any]:
    """Write both forms of the report; returns where they are and how much they cover."""
    directory.mkdir(parents=True, exist_ok=True)
    _put(directory / JSON_NAME, orjson.dumps(report, option=orjson.OPT_INDENT_2))
    _put(directory / HTML_NAME, page.encode())
    return {
        "html": str(directory / HTML_NAME),
        "json": str(directory / JSON_NAME),
        "indexed": len(report["modules"]),
        "quarantined": len(report["quarantined"]),
    }


def _put(path: Path, content: bytes) -> None:
    """Replace a file. Two executions of the step may do this at once: each has a temporary file of its own."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
