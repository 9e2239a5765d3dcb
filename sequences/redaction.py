"""Hiding secrets in values that are shown to people: what is called like a secret, and what looks like one (§15.2)."""

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[REDACTED]"

_NAMES: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "authorization",
    "credential",
    "cookie",
)
_NOT_SECRET: Final = ("tokens", "tokencount", "tokenlimit", "tokentype", "secretname", "cookieconsent")
"""Endings of names that hold one of the words above and are no secrets: numbers of language model tokens, for one."""
_SHAPES: Final = re.compile(
    r"\b(?:sk|pk|rk)_(?:live|test)_\w+"  # payment providers
    r"|\bsk_[0-9a-f]{64}\b"  # keys of this engine
    r"|\bsk-[\w-]{16,}"  # model providers
    r"|\bBearer\s+[\w.~+/=-]+|\bBasic\s+[A-Za-z0-9+/]{12,}={0,2}"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"  # JSON web tokens
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[oprsu]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bxox[abeprs]-[\w-]{8,}|\bwhsec_\w{8,}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----",
    re.ASCII | re.IGNORECASE,
)


def is_sensitive(name: str) -> bool:
    """Tell whether a member of this name is likely a secret.

    >>> [is_sensitive(name) for name in ("api_key", "X-Auth-Token", "max_tokens", "name")]
    [True, True, False, False]
    """
    plain = re.sub(r"[^a-z0-9]", "", name[:200].lower())
    return any(word in plain for word in _NAMES) and not plain.endswith(_NOT_SECRET)


def redact(value: Any) -> Any:
    """Return a JSON value with its secrets replaced; the given one is not changed.

    Null under a sensitive name stays null: there is nothing to hide. Nesting is the caller's to bound.
    """
    if isinstance(value, str):
        return REDACTED if _SHAPES.search(value) else value
    if isinstance(value, Mapping):
        return {
            name: REDACTED if inner is not None and is_sensitive(name) else redact(inner)
            for name, inner in value.items()
        }
    return [redact(inner) for inner in value] if isinstance(value, list) else value


def redact_text(text: str) -> str:
    """Return a text with what looks like a secret replaced, and the rest as it is."""
    return _SHAPES.sub(REDACTED, text)


def holds_redacted(value: Any) -> bool:
    """Tell whether something was replaced in a value."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            if REDACTED in current:
                return True
        elif isinstance(current, Mapping):
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
    return False
