"""Facts of this installation, by name: its id, the broker's epoch."""

from typing import Final

from orchestrator.store.session import Transaction

ID: Final = "id"
"""Fact that tells installations apart which share a Redis."""


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


def schema_version(tx: Transaction) -> str:
    """Name the newest migration this database has seen."""
    rows = tx.query("SELECT version_num FROM alembic_version ORDER BY version_num DESC LIMIT 1")
    return rows[0][0] if rows else ""
