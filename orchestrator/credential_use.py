"""Credentials in the params of steps (sequences contract §12).

A text that is exactly `credentials://<id>` stands for the stored value, `credentials://<id>/<key>` for one field of it.
The secret is put in just before a handler runs or a task is handed to its worker, and nowhere else: params at rest keep
the reference. What a failure or a log line then says is cleared of the secrets that went in.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

import orjson

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.exchange import Work
from orchestrator.renewal import Renewer
from orchestrator.step_errors import PermanentError, RetryableError
from orchestrator.store import credentials
from orchestrator.store.credentials import Credential
from orchestrator.store.interface import Store
from orchestrator.store.postgres import postgres_of
from sequences.json_values import is_deeper
from sequences.redaction import REDACTED

SCHEME: Final = "credentials://"
SHORTEST: Final = 4
"""Characters of a secret that is looked for: shorter ones are in every text."""
_REFERENCE: Final = re.compile(r"credentials://([A-Za-z0-9._-]{1,255})(?:/(.+))?", re.DOTALL)
_MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """Params with their secrets, and these as texts."""

    params: Any = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class CredentialUse:
    """Puts secrets into the params of steps that are about to run."""

    def __init__(self, store: Store, renewer: Renewer) -> None:
        self._store = store
        self._renewer = renewer

    def filled(self, work: Work) -> Work:
        """Give work with its secrets in its params; with a failure if one cannot be had.

        A dry run, which reaches nobody, takes the values as they are stored.
        """
        if work.failure is not None or not has_reference(work.params):
            return work
        filled = self.fill(work.params, work.instance.tenant_id, is_dry_run=work.instance.dry_run)
        if isinstance(filled, Failed):
            return replace(work, failure=filled)
        return replace(work, params=filled.params, secrets=filled.secrets)

    def fill(self, params: Any, tenant_id: str, *, is_dry_run: bool) -> Filled | Failed:
        """Give params with the secrets that they name; the failure of the attempt if one cannot be had."""
        if not has_reference(params):
            return Filled(params=params)
        ids = {name for name, _ in _references(params)}
        with postgres_of(self._store).transaction() as tx:
            found = credentials.of_tenant(tx, tenant_id, ids)
            now = tx.now()
        try:
            usable = {name: _enabled(found.get(name), name) for name in ids}
            if not is_dry_run:
                usable = {name: self._renewer.fresh(each, now) for name, each in usable.items()}
            filled = _replaced(params, {name: _parsed(each.value) for name, each in usable.items()})
        except (PermanentError, RetryableError) as error:
            kind = FailureKind.NETWORK if error.retryable else FailureKind.INPUT
            return Failed(message=error.message, retryable=error.retryable, kind=kind)
        return Filled(params=filled, secrets=_secrets_of(usable))

    def known(self, work: Work) -> Work:
        """Give work that knows its secrets, as they are stored now; its params keep the references."""
        ids = {name for name, _ in _references(work.params)} if has_reference(work.params) else set[str]()
        if not ids:
            return work
        with postgres_of(self._store).transaction() as tx:
            found = credentials.of_tenant(tx, work.instance.tenant_id, ids)
        return replace(work, secrets=_secrets_of(found))


def has_reference(value: Any) -> bool:
    """Tell whether a text inside of a value may name a credential."""
    kind = type(value)
    if kind is str:
        return bool(value.startswith(SCHEME))
    if kind is dict:
        return any(map(has_reference, value.values()))
    return any(map(has_reference, value)) if kind is list else False


def cleared(outcome: Outcome, work: Work) -> Outcome:
    """Give an outcome without the secrets that its handler was given.

    An output stays as the handler has returned it, if the handler was really run: what it returns is its own business.
    """
    if not work.secrets:
        return outcome
    match outcome:
        case Failed():
            message, details = without(outcome.message, work.secrets), without(outcome.details, work.secrets)
            return replace(outcome, message=message, details=details)
        case Completed() if work.instance.dry_run:
            return replace(outcome, output=without(outcome.output, work.secrets))
        case _:
            return outcome


def without(value: Any, secrets: Iterable[str]) -> Any:
    """Give a value with every secret in its texts replaced.

    >>> without({"said": "token s3cret!"}, ["s3cret"])
    {'said': 'token [REDACTED]!'}
    """
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, Mapping):
        return {without(name, secrets): without(inner, secrets) for name, inner in value.items()}
    return [without(inner, secrets) for inner in value] if isinstance(value, list | tuple) else value


def without_cut(text: str, secrets: Iterable[str]) -> str:
    """Give a text without secrets, though its end may have been cut off inside of one.

    >>> without_cut("token s3cret, token s3cr", ["s3cret"])
    'token [REDACTED], token [REDACTED]'
    """
    secrets = tuple(secrets)
    text = without(text, secrets)
    if not secrets:
        return text
    whole = text.rstrip("\ufffd")  # a character that was cut itself
    for secret in secrets:
        for length in range(min(len(secret) - 1, len(whole)), SHORTEST - 1, -1):
            if whole.endswith(secret[:length]):
                return whole[:-length] + REDACTED
    return text


def _references(value: Any) -> Iterator[tuple[str, str | None]]:
    match value:
        case str():
            found = _REFERENCE.fullmatch(value)
            if found is not None:
                yield found[1], found[2]
        case dict():
            for inner in value.values():
                yield from _references(inner)
        case list():
            for inner in value:
                yield from _references(inner)


def _enabled(credential: Credential | None, name: str) -> Credential:
    if credential is None:
        raise PermanentError(f"credential {name!r} is not known")
    if not credential.enabled:
        raise PermanentError(f"credential {name!r} is disabled")
    return credential


def _parsed(value: str) -> Any:
    """Read a stored value: JSON text is what it says, anything else is itself."""
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return value if is_deeper(parsed, _MAX_DEPTH) else parsed


def _replaced(value: Any, known: Mapping[str, Any]) -> Any:
    match value:
        case str():
            found = _REFERENCE.fullmatch(value)
            return value if found is None else _part(known[found[1]], found[1], found[2])
        case dict():
            return {name: _replaced(inner, known) for name, inner in value.items()}
        case list():
            return [_replaced(inner, known) for inner in value]
        case _:
            return value


def _part(value: Any, name: str, key: str | None) -> Any:
    if key is None:
        return value
    if not isinstance(value, dict) or key not in value:
        raise PermanentError(f"credential {name!r} has no field {key!r}")
    return value[key]


def _secrets_of(used: Mapping[str, Credential]) -> tuple[str, ...]:
    return _forms(text for each in used.values() for text in (each.value, *_texts(_parsed(each.value))))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case int() | float() if not isinstance(value, bool):
            yield str(value)


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_ascii_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _forms(texts: Iterable[str]) -> tuple[str, ...]:
    """Give secrets in the forms in which they may turn up in messages, the longest first."""
    plain = {text for text in texts if len(text) >= SHORTEST}
    forms = (plain, map(_in_json, plain), map(_in_ascii_json, plain), (quote(text, safe="") for text in plain))
    return tuple(sorted(set().union(*forms), key=lambda form: (-len(form), form)))
