"""Triggers: names under which flows of a sequence are started (contract, api §15)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.store.sealing import PrivateText, private
from orchestrator.store.session import Transaction

_COLUMNS = (
    "slug, tenant_id, namespace, sequence_name, version, trigger_type, config, secret, enabled, created_at, updated_at"
)
_READ = (
    f"{_COLUMNS}, CASE WHEN previous_secret_until > clock_timestamp() THEN previous_secret END, "
    "CASE WHEN previous_secret_until > clock_timestamp() THEN previous_secret_until END"
)
"""As if a secret whose time is over were gone."""
_NAMES = (*(name.strip() for name in _COLUMNS.split(",")), "previous_secret", "previous_secret_until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger.

    Args:
        version: Of the sequence; None for the newest that is not deprecated when the trigger fires.
        secret: What whoever fires it must know; None for nothing. Never shown.
        previous_secret: The one before, which is as good until `previous_secret_until`.
    """

    slug: str
    tenant_id: str
    namespace: str
    sequence_name: str
    version: int | None = None
    trigger_type: str = "webhook"
    config: Any = None
    secret: str | None = None
    enabled: bool = True
    created_at: datetime
    updated_at: datetime
    previous_secret: str | None = None
    previous_secret_until: datetime | None = None

    @property
    def live_secrets(self) -> tuple[str, ...]:
        """The secrets of which whoever fires it must know one; none for a trigger that asks for none."""
        return tuple(each for each in (self.secret, self.previous_secret) if each is not None)


def _trigger_of(tx: Transaction, row: Sequence[Any]) -> Trigger:
    members = dict(zip(_NAMES, row, strict=True))
    opened = {name: tx.opened_text(members[name]) for name in ("secret", "previous_secret")}
    return Trigger(**{**members, **opened})


def _private_text(text: str | None) -> PrivateText | None:
    return None if text is None else PrivateText(text)


def _row(t: Trigger) -> tuple[Any, ...]:
    return (
        t.slug,
        t.tenant_id,
        t.namespace,
        t.sequence_name,
        t.version,
        t.trigger_type,
        private(t.config),
        _private_text(t.secret),
        t.enabled,
        t.created_at,
        t.updated_at,
    )


def insert(tx: Transaction, trigger: Trigger) -> bool:
    """Store a new trigger; False if anybody has one of that slug."""
    template = "(" + ", ".join(["%s"] * 11) + ")"
    statement = f"INSERT INTO triggers ({_COLUMNS}) VALUES {template} ON CONFLICT DO NOTHING"
    return bool(tx.execute(statement, _row(trigger)))


def get(tx: Transaction, slug: str, *, lock: bool = False) -> Trigger | None:
    """Read a trigger; None if there is none of that slug."""
    rows = tx.query(f"SELECT {_READ} FROM triggers WHERE slug = %s" + (" FOR UPDATE" if lock else ""), (slug,))
    return _trigger_of(tx, rows[0]) if rows else None


def find(tx: Transaction, tenant_id: str | None, limit: int) -> list[Trigger]:
    """List triggers by slug, of one tenant or of all."""
    rows = tx.query(
        f"SELECT {_READ} FROM triggers WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY slug LIMIT %(limit)s",
        {"tenant": tenant_id, "limit": limit},
    )
    return [_trigger_of(tx, row) for row in rows]


def update(tx: Transaction, trigger: Trigger) -> None:
    """Write what may change of a trigger: version, config, secrets, enabled."""
    tx.execute(
        "UPDATE triggers SET version = %s, config = %s, secret = %s, previous_secret = %s, previous_secret_until = %s, "
        "enabled = %s, updated_at = clock_timestamp() WHERE slug = %s",
        (
            trigger.version,
            private(trigger.config),
            _private_text(trigger.secret),
            _private_text(trigger.previous_secret),
            trigger.previous_secret_until,
            trigger.enabled,
            trigger.slug,
        ),
    )


def delete(tx: Transaction, slug: str) -> None:
    """Remove a trigger."""
    tx.execute("DELETE FROM triggers WHERE slug = %s", (slug,))
