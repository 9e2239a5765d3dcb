"""Transactions in few messages, statements that the server keeps, and connections that are lost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg2
import pytest

from orchestrator.errors import StoreUnavailable
from orchestrator.store.pool import Pool, Pooler
from orchestrator.store.prepared import form, prepared
from orchestrator.store.session import Store, Transaction, is_unavailable
from workers.attempt import TimedOut, time_limit

COLUMNS = (
    "id int, name text, path int[], token uuid, is_held boolean, moment timestamptz, lasts interval, document json"
)
PUT = prepared("test_put", COLUMNS, "INSERT INTO things ({columns}) SELECT * FROM {rows}")
TOTAL = form("test_sum", ["int[]"], "SELECT sum(n) FROM unnest($1) AS n")
MOMENT = datetime(2026, 1, 1, 12, 30, 0, 250_000, tzinfo=UTC)
FULL = (UUID(int=7), False, MOMENT, timedelta(days=-1, seconds=5, microseconds=30))
HARD_TEXTS = (
    *("", "NULL", "{}", "a,b", 'say "so"', "back\\slash", "it's", "two\nlines", "%s", "; COMMIT", "ü€😀"),
    *("it's $", "it's $q", "$q$it's", "it's $q$; SELECT 1", "$$ \\ $$"),
)


@pytest.fixture
def database_url(kept_database: str) -> str:
    """A database: the tests here clear away what they make."""
    return kept_database


@pytest.fixture(params=list(Pooler))
def store(database_url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    opened = Store(database_url, pooler=request.param)
    yield opened
    opened.close()


@pytest.fixture
def things(store: Store) -> Iterator[Store]:
    with store.transaction() as tx:
        tx.execute("DROP TABLE IF EXISTS things")
        tx.execute(f"CREATE TABLE things ({COLUMNS}, PRIMARY KEY (id))")
    yield store
    with store.transaction() as tx:
        tx.execute("DROP TABLE things")


def rows_of(store: Store) -> list[tuple[Any, ...]]:
    with store.transaction() as tx:
        return tx.query("SELECT * FROM things ORDER BY id")


@pytest.mark.parametrize("texts", [HARD_TEXTS[:1], HARD_TEXTS], ids=["one row", "many rows"])
def test_what_is_put_is_read_again(things: Store, texts: tuple[str, ...]) -> None:
    rows = [(number, text, [number, -1], *FULL, f'{{"x": "{number}"}}') for number, text in enumerate(texts)]
    with things.transaction() as tx:
        tx.put(PUT, rows)
    assert rows_of(things) == [(*row[:-1], {"x": str(row[0])}) for row in rows]


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_any_text_can_be_the_only_row(things: Store, text: str) -> None:
    with things.transaction() as tx:
        tx.put(PUT, [(1, text, [], *FULL, "null")])
    assert rows_of(things) == [(1, text, [], *FULL, None)]


def test_text_with_nul_is_refused_and_parts_no_array(things: Store) -> None:
    rows = [(number, text, [], *FULL, "null") for number, text in enumerate(("a", "b\0c"))]
    with pytest.raises(ValueError, match="NUL"), things.transaction() as tx:
        tx.put(PUT, rows)
    assert rows_of(things) == []


@pytest.mark.parametrize("count", [1, 2])
def test_two_moments_of_the_hour_that_is_there_twice_are_kept_apart(things: Store, count: int) -> None:
    """Python calls them equal."""
    moments = [datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold) for fold in (0, 1)]
    assert moments[0] == moments[1]
    rows = [(number, None, None, None, None, moment, None, None) for number, moment in enumerate(moments)]
    for start in range(0, 2, count):
        with things.transaction() as tx:
            tx.put(PUT, rows[start : start + count])
    assert rows_of(things)[1][5] - rows_of(things)[0][5] == timedelta(hours=1)


@pytest.mark.parametrize("count", [1, 3])
def test_none_is_null_in_every_type(things: Store, count: int) -> None:
    nothing = (None,) * 7
    with things.transaction() as tx:
        tx.put(PUT, [(number, *nothing) for number in range(count)])
    assert rows_of(things) == [(number, *nothing) for number in range(count)]


def test_what_is_sent_later_is_seen_by_the_next_query(things: Store) -> None:
    with things.transaction() as tx:
        tx.later("INSERT INTO things (id) VALUES (%s)", (1,))
        assert tx.query("SELECT id FROM things") == [(1,)]


def test_a_transaction_that_fails_at_its_end_has_done_nothing(things: Store) -> None:
    def insert_twice() -> None:
        with things.transaction() as tx:
            tx.later("INSERT INTO things (id) VALUES (1)")
            tx.later("INSERT INTO things (id) VALUES (1)")

    with pytest.raises(psycopg2.errors.UniqueViolation):
        insert_twice()
    assert rows_of(things) == []


def test_an_error_of_the_caller_undoes_what_was_sent(things: Store) -> None:
    def insert_and_fail() -> None:
        with things.transaction() as tx:
            tx.execute("INSERT INTO things (id) VALUES (1)")
            raise LookupError

    with pytest.raises(LookupError):
        insert_and_fail()
    assert rows_of(things) == []


def test_a_statement_is_prepared_anew_after_its_first_message_has_failed(things: Store) -> None:
    again = prepared("test_again", "id int", "INSERT INTO things ({columns}) SELECT * FROM {rows}")

    def put_twice() -> None:
        with things.transaction() as tx:
            tx.put(again, [(1,)])
            tx.put(again, [(1,)])

    for _ in range(2):
        with pytest.raises(psycopg2.errors.UniqueViolation):
            put_twice()
    with things.transaction() as tx:
        tx.put(again, [(2,)])
    assert [row[0] for row in rows_of(things)] == [2]


class Interrupted(BaseException):
    """As a signal raises it in the middle of whatever runs."""


def interrupted_after(store: Store, works: Callable[[Transaction], object]) -> None:
    """Use a kept statement, then end a transaction by an error that comes after some work."""
    with store.transaction() as tx:
        assert tx.ask(TOTAL, ("{1,2}",)) == [(3,)]

    def work() -> None:
        with store.transaction() as tx:
            works(tx)
            raise Interrupted

    with pytest.raises(Interrupted):
        work()


@pytest.mark.parametrize(
    "works",
    [lambda _: None, lambda tx: tx.ask(TOTAL, ("{1}",)), Transaction.commit, lambda tx: (tx.now(), tx.commit())],
    ids=["before the first message", "after it", "after an empty commit", "after the commit"],
)
def test_kept_statements_can_be_used_after_a_transaction_was_ended_at_any_point(
    store: Store, works: Callable[[Transaction], object]
) -> None:
    interrupted_after(store, works)
    with store.transaction() as tx:
        assert tx.ask(TOTAL, ("{1,2}",)) == [(3,)]


def test_kept_statements_can_be_used_after_a_message_that_the_server_did_not_understand(store: Store) -> None:
    def err() -> None:
        with store.transaction() as tx:
            tx.execute("SELEC 1")

    with store.transaction() as tx:
        tx.ask(TOTAL, ("{1,2}",))
    with pytest.raises(psycopg2.errors.SyntaxError):
        err()
    with store.transaction() as tx:
        assert tx.ask(TOTAL, ("{1,2}",)) == [(3,)]


def test_a_kept_statement_is_asked_with_arrays(store: Store) -> None:
    total = form("test_total", ["int[]", "text"], "SELECT sum(n), $2 FROM unnest($1) AS n")
    with store.transaction() as tx:
        assert tx.ask(total, ("{1,2,3}", "x")) == [(6, "x")]


def test_a_transaction_that_does_nothing_sends_nothing(store: Store) -> None:
    with store.transaction() as tx:
        assert tx.cursor.statusmessage is None
    assert tx.cursor.statusmessage is None


@pytest.mark.parametrize(
    "ends",
    [lambda tx: tx.now(), lambda tx: tx.execute("SELECT 1 / 0"), lambda tx: tx.later("SELEC 1"), lambda _: 1 / 0],
    ids=["commit", "error of a statement", "error of the commit", "error before it has begun"],
)
def test_what_follows_a_transaction_that_may_be_lost_waits_for_the_disk(
    store: Store, ends: Callable[[Transaction], object]
) -> None:
    seen = []

    def write_what_may_be_lost(works: Callable[[Transaction], object]) -> None:
        with store.transaction(is_losable=True) as tx:
            works(tx)

    def process_and_setting(tx: Transaction) -> tuple[Any, ...]:
        return tx.query("SELECT pg_backend_pid(), current_setting('synchronous_commit')")[0]

    write_what_may_be_lost(lambda tx: seen.append(process_and_setting(tx)))
    with suppress(psycopg2.Error, ZeroDivisionError):
        write_what_may_be_lost(ends)
    with store.transaction() as tx:
        seen.append(process_and_setting(tx))
    process = seen[0][0]
    assert seen == [(process, "off"), (process, "on")]


def test_a_single_statement_is_committed_without_a_beginning_and_an_end(things: Store) -> None:
    with things.transaction(is_single=True, is_losable=True) as tx:
        assert tx.execute("INSERT INTO things VALUES (1)") == 1
    with pytest.raises(psycopg2.IntegrityError), things.transaction(is_single=True) as tx:
        tx.execute("INSERT INTO things VALUES (2), (1)")
    with things.transaction(is_single=True) as tx:
        tx.later("INSERT INTO things VALUES (3)")
    with things.transaction(is_single=True) as tx:
        assert tx.query("SELECT array_agg(id ORDER BY id), current_setting('synchronous_commit') FROM things") == [
            ([1, 3], "on")
        ]


SETTINGS = form(
    "test_settings",
    [],
    "SELECT current_setting('synchronous_commit'), current_setting('transaction_read_only'), "
    "coalesce(current_setting('orchestrator.tenant', true), ''), current_user",
)


def test_what_comes_in_one_message_is_a_transaction_of_its_kind(store: Store) -> None:
    with store.transaction(is_losable=True, is_single=True) as tx:
        assert tx.ask(SETTINGS, ())[0][:2] == ("off", "off")
    with store.reading(None, is_single=True) as tx:
        assert tx.ask(SETTINGS, ())[0][:2] == ("on", "on")
    with store.transaction(is_single=True) as tx:
        assert tx.ask(SETTINGS, ())[0] == ("on", "off", "", "orchestrator")


def test_each_of_several_messages_reads_for_its_tenant(store: Store) -> None:
    with store.reading("it's", is_single=True) as tx:
        seen = [tx.ask(SETTINGS, ()), tx.query("SELECT current_user"), tx.ask(SETTINGS, ())]
    own = ("on", "on", "it's", "orchestrator_tenant")
    assert seen == [[own], [own[3:]], [own]]


def end_session(store: Store, tx: Transaction) -> None:
    """Let the server drop the connection of a transaction, as if it went down."""
    process = tx.query("SELECT pg_backend_pid()")[0][0]
    other = Store(store.url)
    with other.transaction() as killing:
        killing.query("SELECT pg_terminate_backend(%s)", (process,))
    other.close()


def test_a_lost_connection_is_told_and_not_used_again(store: Store) -> None:
    def ask_after_the_end() -> None:
        with store.transaction() as tx:
            end_session(store, tx)
            tx.query("SELECT 1")

    with pytest.raises(StoreUnavailable):
        ask_after_the_end()
    with store.transaction() as tx:
        assert tx.query("SELECT 1") == [(1,)]


def test_a_server_that_takes_no_writes_any_more_is_left(store: Store) -> None:
    """A failover: the address names another server by now, and the connections that stand still lead to the former."""
    with store.transaction() as tx:
        former = tx.query("SELECT pg_backend_pid(), set_config('default_transaction_read_only', 'on', false)")[0][0]
    with pytest.raises(StoreUnavailable, match="takes no writes"), store.transaction() as tx:
        tx.execute("DELETE FROM nonces")
    with store.transaction() as tx:
        assert tx.execute("DELETE FROM nonces") == 0
        assert tx.query("SELECT pg_backend_pid()")[0][0] != former


def test_with_one_connection_lost_all_older_ones_are_suspected(store: Store) -> None:
    pool = Pool(store.url, size=2, overflow=0)
    lost, other = pool.take(), pool.take()
    pool.give(other)
    lost.close()
    pool.give(lost)
    found = pool.take()
    assert found is not other
    assert other.closed
    pool.give(found)
    pool.close()
    assert found.closed


def test_who_waits_too_long_for_a_connection_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.pool.WAIT_SECONDS", 0.01)
    pool = Pool(store.url, size=1, overflow=0)
    taken = pool.take()
    with pytest.raises(StoreUnavailable, match="all 1 connections"):
        pool.take()
    pool.give(taken)
    pool.give(pool.take())
    pool.close()


def test_a_handler_whose_time_is_over_takes_no_connection_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm rings while it is being lent one."""
    monkeypatch.setattr("orchestrator.store.pool.WAIT_SECONDS", 0.1)
    own = Store(store.url)
    lend = own._pool._free.acquire

    def lend_at_the_end(*positional: Any, **named: Any) -> bool:
        is_lent = lend(*positional, **named)
        os.kill(os.getpid(), signal.SIGALRM)
        return is_lent

    def handle() -> None:
        with own.transaction() as tx:
            assert tx.query("SELECT 1") == [(1,)]
        time.sleep(30)

    monkeypatch.setattr(own._pool._free, "acquire", lend_at_the_end)
    with pytest.raises(TimedOut), time_limit(60):
        handle()
    monkeypatch.setattr(own._pool._free, "acquire", lend)
    with own.transaction() as tx:
        assert tx.query("SELECT 1") == [(1,)]
    own.close()


def test_old_connections_are_not_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(store.url, size=1, overflow=0)
    first = pool.take()
    pool.give(first)
    monkeypatch.setattr("orchestrator.store.pool.MAX_AGE_SECONDS", 0.0)
    second = pool.take()
    assert second is not first
    assert first.closed
    pool.give(second)


def test_a_server_that_stands_still_is_given_up(store: Store) -> None:
    pool = Pool(store.url, size=1, overflow=0, silence=1)
    connection = pool.take()
    session = connection.info.backend_pid
    os.kill(session, signal.SIGSTOP)
    try:
        with connection.cursor() as cursor, pytest.raises(psycopg2.Error) as caught:
            cursor.execute("SELECT 1")
    finally:
        os.kill(session, signal.SIGCONT)
    assert is_unavailable(caught.value)
    pool.give(connection)
    fresh = pool.take()
    assert fresh is not connection
    with fresh.cursor() as cursor:
        cursor.execute("SELECT 1")
    pool.give(fresh)
    pool.close()


def test_a_connection_that_waits_for_use_is_not_cut(store: Store) -> None:
    pool = Pool(store.url, size=1, overflow=0, silence=60)
    connection = pool.take()
    pool.give(connection)
    pool.cut_silent()
    assert pool.take() is connection
    pool.cut_silent()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    pool.give(connection)
    pool.close()
