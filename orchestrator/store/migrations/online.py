"""What a migration does to a large table while others work with it: in parts, and without their waiting for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alembic import op
from sqlalchemy import text

ROWS_AT_ONCE = 5000


@contextmanager
def outside_of_transactions() -> Iterator[None]:
    """Run what PostgreSQL runs in no transaction; put it last in a migration, as what stands before it is committed."""
    limits = ["statement_timeout", "lock_timeout", *(["transaction_timeout"] if _has_transaction_timeout() else [])]
    with op.get_context().autocommit_block():
        for limit in limits:
            op.execute(f"SET {limit} = 0")
        try:
            yield
        finally:
            for limit in limits:
                op.execute(f"RESET {limit}")


def _has_transaction_timeout() -> bool:
    """Tell whether the server knows that limit, which single statements are under, too: from version 17 on."""
    if op.get_context().as_sql:
        return False
    return bool(op.get_bind().execute(text("SELECT 1 FROM pg_settings WHERE name = 'transaction_timeout'")).scalar())


def create_index(
    name: str, table: str, columns: Sequence[str], *, where: str | None = None, using: str = "btree", options: str = ""
) -> None:
    """Build an index while others write; one that was left half built is built anew.

    Args:
        columns: Columns or expressions, as SQL.
        using: The kind of index.
        options: Its storage parameters, as SQL.
    """
    kind = "" if using == "btree" else f"USING {using} "
    parameters = f" WITH ({options})" if options else ""
    condition = "" if where is None else f" WHERE {where}"
    with outside_of_transactions():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {table} {kind}({', '.join(columns)}){parameters}{condition}")


def drop_index(name: str) -> None:
    """Drop an index while others read and write."""
    with outside_of_transactions():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def fill(table: str, assignment: str, where: str) -> int:
    """Write a column of old rows, some thousand in each transaction; returns how many, 0 where SQL is only written.

    Args:
        where: Means the rows that are not written yet, and none that are.
    """
    statement = (
        f"UPDATE {table} SET {assignment} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {where} "
        f"LIMIT {ROWS_AT_ONCE}))"
    )
    written = 0
    if op.get_context().as_sql:
        return written
    with outside_of_transactions():
        while (count := op.get_bind().execute(text(statement)).rowcount) > 0:
            written += count
    return written
