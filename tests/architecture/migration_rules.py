"""What a migration may not do to a table that others work with, found in the SQL that it runs.

Old processes go on while a database is migrated, and after it: nothing they read or write may go away, and no lock that
they wait for may be held for as long as it takes to read or write a large table.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is not done.

    Args:
        pattern: Finds it in one statement; its group `table` names the table, if it is about one.
        why: What goes wrong, and what to do instead.
    """

    pattern: re.Pattern[str]
    why: str


def _rule(pattern: str, why: str) -> Rule:
    return Rule(pattern=re.compile(pattern, re.IGNORECASE | re.DOTALL), why=why)


_ALTER = r"ALTER TABLE (?:IF EXISTS |ONLY )*(?P<table>[\w.]+) .*?"
RULES = (
    _rule(
        r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON (?:ONLY )?(?P<table>[\w.]+)",
        "keeps writers out while it is built: online.create_index",
    ),
    _rule(r"DROP INDEX (?!CONCURRENTLY)", "waits for all who read, and all wait behind it: online.drop_index"),
    _rule(
        _ALTER + r"ADD COLUMN .*?GENERATED ALWAYS AS .*?STORED",
        "writes the whole table anew under its lock: add a plain column, let the code write it, online.fill the rest",
    ),
    _rule(
        _ALTER + r"ADD COLUMN .*?DEFAULT .*?(?:random|uuid|clock_timestamp|timeofday|nextval)",
        "writes the whole table anew under its lock: add it without a default, then online.fill",
    ),
    _rule(
        _ALTER + r"ADD COLUMN (?:(?!DEFAULT).)*NOT NULL(?!.*DEFAULT)",
        "old processes do not know the column: give it a default",
    ),
    _rule(_ALTER + r"ALTER COLUMN \w+ (?:SET DATA )?TYPE", "writes the whole table anew: a new column, online.fill"),
    _rule(
        _ALTER + r"SET NOT NULL",
        "reads the whole table under its lock: ADD CONSTRAINT CHECK (.. IS NOT NULL) NOT VALID, then VALIDATE",
    ),
    _rule(
        _ALTER + r"ADD CONSTRAINT (?!.*NOT VALID).*?(?:CHECK|FOREIGN KEY)",
        "reads the whole table under its lock: NOT VALID, and VALIDATE CONSTRAINT in a migration of its own",
    ),
    _rule(
        _ALTER + r"ADD CONSTRAINT (?!.*USING INDEX).*?(?:UNIQUE|PRIMARY KEY|EXCLUDE)",
        "builds an index under the lock: build it online, then ADD CONSTRAINT .. USING INDEX",
    ),
    _rule(_ALTER + r"DROP COLUMN", "old processes still read it: only in a version after the one that stopped to"),
    _rule(r"DROP TABLE (?:IF EXISTS )?(?P<table>[\w.]+)", "old processes still read it"),
    _rule(_ALTER + r"RENAME", "old processes know the old name: add the new one, and drop the old one a version later"),
    _rule(
        r"^\s*(?:WITH .*)?(?:UPDATE|DELETE FROM) (?P<table>[\w.]+)",
        "locks all rows for as long as it takes: online.fill",
    ),
    _rule(r"^\s*(?:LOCK|CLUSTER|VACUUM FULL|REINDEX(?! .*CONCURRENTLY))\b", "keeps everybody out"),
)
_CREATED = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?([\w.]+)", re.IGNORECASE)
_OWN = re.compile(r"(?:INTO|UPDATE|FROM|TABLE) alembic_version\b", re.IGNORECASE)


def statements_of(sql: str) -> list[str]:
    """Take SQL apart into statements, without comments."""
    text = re.sub(r"--[^\n]*", "", sql)
    return [statement.strip() for statement in re.split(r";\s*(?:\n|$)", text) if statement.strip()]


def broken_rules(sql: str) -> Iterator[str]:
    """Name what a migration does that it may not; what it does to tables that it has made itself does not count."""
    statements = statements_of(sql)
    fresh = {name for statement in statements for name in _CREATED.findall(statement)}
    for statement in statements:
        for rule in RULES:
            found = rule.pattern.search(statement)
            if found and not _OWN.search(statement) and found.groupdict().get("table") not in fresh:
                yield f"{' '.join(statement.split())[:120]}: {rule.why}"
