"""Facts of this installation, by name: its id, the broker's epoch."""

from datetime import timedelta
from typing import Final

from orchestrator.encryption import Vault
from orchestrator.errors import ConfigurationError
from orchestrator.store.session import Transaction

ID: Final = "id"
"""Fact that tells installations apart which share a Redis."""
EPOCHS_AHEAD: Final = 1_000_000
"""More claims of one task than any installation makes between a moment and the end of its log."""
KEY: Final = "encryption_key"
"""Fact that names the key with which is sealed; missing while nothing is."""


def read(tx: Transaction, name: str) -> str | None:
    """Read one fact; None if it was never written."""
    rows = tx.query("SELECT value FROM installation WHERE name = %s", (name,))
    return rows[0][0] if rows else None


def write(tx: Transaction, name: str, value: str) -> None:
    """Write one fact."""
    tx.execute(
        "INSERT INTO installation (name, value) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
        (name, value),
    )


def write_moment(tx: Transaction, name: str) -> None:
    """Write the database's time as a fact, in ISO 8601."""
    tx.execute(
        "INSERT INTO installation (name, value) VALUES (%s, to_json(clock_timestamp()) #>> '{}') "
        "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
        (name,),
    )


def identity(tx: Transaction) -> str:
    """Give the id of this installation; made by whoever asks first, and kept as long as the database."""
    known = read(tx, ID)
    if known is None:
        tx.execute(
            "INSERT INTO installation (name, value) VALUES (%s, gen_random_uuid()::text) ON CONFLICT (name) DO NOTHING",
            (ID,),
        )
        known = read(tx, ID)
    if known is None:
        raise LookupError("the id of the installation was removed while it was read")
    return known


def begin_anew(tx: Transaction, silent_for: timedelta) -> str:
    """Make a restored or copied database an installation of its own; returns its new id.

    Hints and marks that Redis holds of the former one are none of ours under another id. Claims of the time after the
    moment that was restored are unknown here, but their numbers were given out already: those of open tasks go on
    above all of them, so that a late report of that time is refused.

    Args:
        silent_for: Loops and workers that have said nothing for so long do not run.

    Raises:
        ConfigurationError: Its loops or workers run.
    """
    alive = tx.query(
        "SELECT name FROM workers WHERE heartbeat_at > clock_timestamp() - %(s)s UNION ALL SELECT 'service loops' FROM "
        "installation WHERE name = 'service_heartbeat' AND value::timestamptz > clock_timestamp() - %(s)s LIMIT 1",
        {"s": silent_for},
    )
    if alive:
        raise ConfigurationError(f"processes of this installation run ({alive[0][0]}): end them first")
    tx.execute("DELETE FROM installation WHERE name IN (%s, 'broker_epoch', 'service_heartbeat')", (ID,))
    tx.execute("UPDATE steps SET claim_epoch = claim_epoch + %s", (EPOCHS_AHEAD,))
    tx.execute("UPDATE steps SET hinted_at = NULL, hints = 0 WHERE hinted_at IS NOT NULL")
    return identity(tx)


def agree_on_key(tx: Transaction, vault: Vault | None) -> None:
    """Note with which key is sealed from now on; nothing in a database that has no tables yet.

    Raises:
        ConfigurationError: The one noted before is not known to this process.
    """
    if tx.query("SELECT to_regclass('installation')") == [(None,)]:
        return
    known = read(tx, KEY)
    if known is not None and (vault is None or not vault.knows(known)):
        raise ConfigurationError(
            "what this database holds is encrypted with another key: set ORCH8_ENCRYPTION_KEY, "
            "and ORCH8_OLD_ENCRYPTION_KEY to the key before it"
        )
    if vault is not None and vault.key_id != known:
        write(tx, KEY, vault.key_id)


def schema_version(tx: Transaction) -> str:
    """Name the newest migration this database has seen."""
    rows = tx.query("SELECT version_num FROM alembic_version ORDER BY version_num DESC LIMIT 1")
    return rows[0][0] if rows else ""
