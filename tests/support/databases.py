"""Databases of single tests, on servers that many tests share."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql

from orchestrator import embedded
from orchestrator.embedded.postgres import ROLE


def spare_the_disk(servers: embedded.Servers) -> None:
    """Let PostgreSQL wait for no disk: what tests store must outlive processes, but not the machine.

    A database is 300 files, and a checkpoint would flush those of every test.
    """
    assert servers.admin_url is not None
    for setting in ("fsync", "full_page_writes"):
        _execute(servers.admin_url, sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
    _execute(servers.admin_url, sql.SQL("SELECT pg_reload_conf()"))


@contextmanager
def copied(servers: embedded.Servers, name: str, template: str) -> Iterator[str]:
    """Have a copy of a database for a block; gives its URL.

    Copying files takes a checkpoint and a third of the time of copying pages; where nothing waits for the disk, a
    checkpoint is nothing. The administrator does it, whose statements have no limit, and who may end an autovacuum that
    is at work in a database to be dropped.
    """
    assert servers.admin_url is not None
    target, source, owner = sql.Identifier(name), sql.Identifier(template), sql.Identifier(ROLE)
    create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY").format(target, owner, source)
    _execute(servers.admin_url, create)
    try:
        yield embedded.with_database(servers.database_url, name)
    finally:
        _execute(servers.admin_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(target))


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Ask a database, as no part of the orchestrator does."""
    with closing(psycopg2.connect(embedded.without_driver(url))) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def _execute(url: str, statement: sql.Composable) -> None:
    with closing(psycopg2.connect(embedded.without_driver(url), connect_timeout=10)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
