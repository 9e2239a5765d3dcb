"""Which failures have the same cause: a fingerprint of their class, their code and the form of their message."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from orchestrator.store.dead_letters import Failure

SAMPLES: Final = 5
_CODES: Final = ("error_code", "code", "status")
# Longest first: an id holds numbers, a number may stand in a longer word.
_VARYING: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0x[0-9a-f]+|[0-9a-f]{16,}|\d+(?:[.:,]\d+)*", re.I
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What failures of one group share; `message` without what varies from one to the next."""

    error_class: str
    error_code: str | None
    message: str

    @property
    def fingerprint(self) -> str:
        """A name of the cause: 16 hexadecimal digits."""
        written = orjson.dumps([self.error_class, self.error_code, self.message])
        return hashlib.sha256(written).hexdigest()[:16]


def cause_of(failure: Failure) -> Cause:
    """Give the cause of a failure.

    >>> normalized("order 17 of 01a22491-5c85-7fdf-9412-c9094a9bacad took 3.5 s")
    'order <n> of <n> took <n> s'
    """
    error = failure.error or {}
    details = error.get("details")
    codes = [details[name] for name in _CODES if details.get(name) is not None] if isinstance(details, dict) else []
    return Cause(
        error_class=str(error.get("kind") or ("timeout" if failure.outcome == "timed_out" else "flow")),
        error_code=str(codes[0]) if codes else None,
        message=normalized(message_of(failure)),
    )


def message_of(failure: Failure) -> str:
    """Give what was said of a failure; empty if nothing was."""
    said = (failure.error or {}).get("message")
    return said if isinstance(said, str) else ""


def normalized(message: str) -> str:
    """Give a message without ids and numbers."""
    return _VARYING.sub("<n>", message)[:500]


def groups(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Group failures by cause, the largest group first; as the API shows them (contract, api §21)."""
    members: dict[Cause, list[Failure]] = {}
    for failure in failures:
        members.setdefault(cause_of(failure), []).append(failure)
    found = [_group(cause, of_cause) for cause, of_cause in members.items()]
    return sorted(found, key=lambda group: (-group["count"], group["fingerprint"]))


def _group(cause: Cause, failures: list[Failure]) -> dict[str, Any]:
    moments = [each.failed_at for each in failures]
    return {
        "fingerprint": cause.fingerprint,
        "components": {"error_class": cause.error_class, "error_code": cause.error_code, "message": cause.message},
        "error_class": cause.error_class,
        "error_code": cause.error_code,
        "sample_message": message_of(failures[0]),
        "count": len(failures),
        "first_occurrence": min(moments),
        "last_occurrence": max(moments),
        "sequences": _most_frequent(each.sequence_id for each in failures),
        "blocks": _most_frequent(each.block_id for each in failures),
        "handlers": _most_frequent(each.handler for each in failures),
        "sample_instance_ids": [each.instance_id for each in failures[:SAMPLES]],
    }


def _most_frequent(values: Iterable[UUID | str | None]) -> list[UUID | str]:
    counted = Counter(value for value in values if value is not None)
    return [value for value, _ in counted.most_common()]
