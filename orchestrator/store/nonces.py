"""Nonces of signed fires: each is good for one, whichever process it comes to."""

from orchestrator.store.session import Transaction

_KEPT_FOR = "interval '360 seconds'"
"""As long as a signature may be good for: 60 s before the moment it names and 300 s after it."""


def take(tx: Transaction, slug: str, nonce: str) -> bool:
    """Use a nonce; False if it has been used within six minutes. Waits for a fire with the same one under way."""
    return bool(
        tx.execute(
            "INSERT INTO nonces (slug, nonce, used_at) VALUES (%s, %s, clock_timestamp()) "
            "ON CONFLICT (slug, nonce) DO UPDATE SET used_at = EXCLUDED.used_at "
            f"WHERE nonces.used_at <= clock_timestamp() - {_KEPT_FOR}",
            (slug, nonce),
        )
    )


def forget_old(tx: Transaction, limit: int) -> int:
    """Remove some of the nonces whose signatures are no longer good; returns how many."""
    return tx.execute(
        "DELETE FROM nonces WHERE (slug, nonce) IN (SELECT slug, nonce FROM nonces "
        f"WHERE used_at <= statement_timestamp() - {_KEPT_FOR} ORDER BY used_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        (limit,),
    )
