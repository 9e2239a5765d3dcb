"""New migrations leave alone those who work while they run; old ones were applied before anybody did."""

import io
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from orchestrator.store import migrate
from tests.architecture.migration_rules import broken_rules, statements_of

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"
FIRST_RELEASE = "0033"
"""The migrations of the first version, which find no rows."""


def _sql(revision: str) -> str:
    """Write the SQL of one migration."""
    written = io.StringIO()
    config = Config(output_buffer=written)
    config.set_main_option("script_location", str(VERSIONS.parent))
    command.upgrade(config, f"{migrate.revisions()[revision]}:{revision}", sql=True)
    return written.getvalue()


def test_new_migrations_keep_nobody_waiting() -> None:
    broken = {
        revision: found
        for revision in sorted(migrate.revisions())
        if revision > FIRST_RELEASE and (found := list(broken_rules(_sql(revision))))
    }
    assert not broken


def test_each_migration_can_be_taken_back() -> None:
    for path in VERSIONS.glob("*.py"):
        assert "def downgrade()" in path.read_text(), path.name


def test_what_is_slow_would_be_noticed() -> None:
    found = "\n".join(broken_rules(_sql("0032")))
    assert "writes the whole table anew" in found
    assert "online.create_index" in found
    assert "online.drop_index" in found


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX a ON steps (state)",
        "CREATE UNIQUE INDEX a ON steps (state)",
        "DROP INDEX a",
        "ALTER TABLE steps ADD COLUMN a TEXT GENERATED ALWAYS AS (b || 'x') STORED",
        "ALTER TABLE steps ADD COLUMN a UUID DEFAULT gen_random_uuid()",
        "ALTER TABLE steps ADD COLUMN a INTEGER NOT NULL",
        "ALTER TABLE steps ALTER COLUMN a TYPE BIGINT",
        "ALTER TABLE ONLY steps ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE steps ADD CONSTRAINT a CHECK (b > 0)",
        "ALTER TABLE steps ADD CONSTRAINT a FOREIGN KEY(b) REFERENCES instances (id)",
        "ALTER TABLE steps ADD CONSTRAINT a UNIQUE (b)",
        "ALTER TABLE steps DROP COLUMN a",
        "ALTER TABLE steps RENAME a TO b",
        "DROP TABLE steps",
        "UPDATE steps SET a = 1",
        "DELETE FROM steps",
        "LOCK TABLE steps",
    ],
)
def test_a_dangerous_statement_is_found(statement: str) -> None:
    assert len(list(broken_rules(f"BEGIN;\n\n{statement};\n\nCOMMIT;\n"))) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY a ON steps (state)",
        "DROP INDEX CONCURRENTLY a",
        "ALTER TABLE steps ADD COLUMN a TEXT",
        "ALTER TABLE steps ADD COLUMN a INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE steps ADD COLUMN a INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE steps ADD CONSTRAINT a CHECK (b > 0) NOT VALID",
        "ALTER TABLE steps ADD CONSTRAINT a UNIQUE USING INDEX b",
        "ALTER TABLE steps VALIDATE CONSTRAINT a",
        "UPDATE alembic_version SET version_num='0034' WHERE alembic_version.version_num = '0033'",
        "CREATE TABLE fresh (a TEXT);\n\nCREATE INDEX b ON fresh (a)",
    ],
)
def test_what_keeps_nobody_waiting_is_let_through(statement: str) -> None:
    assert not list(broken_rules(f"BEGIN;\n\n{statement};\n\nCOMMIT;\n"))
    assert statements_of(statement)
