"""The statements of a commit can be sent one by one, for each to be measured: the outcome is the same."""

from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from tests.benchmarks.costs import Route, Statements

INSTANCES, LENGTH = 2, 3


def test_statements_sent_one_by_one_do_what_one_message_does(database_url: str, settings: Settings) -> None:
    store = PostgresStore(database_url)
    route = Route(
        store, Engine(store, lambda _hints: None, settings), "flow", instances=INSTANCES, length=LENGTH, batch=1
    )
    route.start()

    with Statements() as statements:
        ran = route.drive()

    with store.transaction() as tx:
        [(ended, outputs)] = tx.query(
            "SELECT (SELECT count(*) FROM instances WHERE state = 'completed'), (SELECT count(*) FROM outputs)"
        )
    store.close()
    assert (ran, ended, outputs) == (INSTANCES * LENGTH, INSTANCES, INSTANCES * LENGTH)
    assert "EXECUTE update_if_held" in statements.counts()
