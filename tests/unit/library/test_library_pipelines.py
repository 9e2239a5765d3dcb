"""The ready sequences that move data: invoice_batch, process_invoice, data_migration, lead_intake, partner_sync, quote,
routed_work, fulfilment, library_index.

Breakers are not played in memory, nor are the wires of gRPC; queues are, by name only.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator.errors import Unprocessable
from orchestrator.testing import (
    Harness,
    PermanentError,
    RetryableError,
    Run,
    after,
    at,
    before,
    hangs,
    script,
    silent,
    takes,
    waiting,
)
from sequences import library
from tests.support.library import calls, moments, next_page

AWAY = RetryableError("away")


def seconds(*numbers: float) -> list[timedelta]:
    """Moments after the start."""
    return [timedelta(seconds=number) for number in numbers]


# -- invoice_batch and process_invoice ---------------------------------------------------------------------------------

BATCH = library.example_input("invoice_batch")
INVOICE = library.example_input("process_invoice")
CHILDREN = {"process_invoice": "process_invoice"}


def batch(harness: Harness, **handlers: Any) -> Run:
    return harness.run("invoice_batch", BATCH, handlers=handlers, sub_sequences=CHILDREN)


def test_invoice_batch_quarantines_the_bad_invoice_and_goes_on(harness: Harness) -> None:
    run = batch(harness)
    run.expect("completed")
    assert [str(child.state) for child in run.children] == ["completed", "failed", "completed"]
    [quarantined] = calls(run, "quarantine")
    assert quarantined.params["invoice"]["number"] == "R-2"
    assert quarantined.params["error"]["failed_blocks"] == ["process"]
    assert quarantined.params["error"]["block_id"] == "isolate"
    assert calls(run, "summary")[0].params == {"batch": "2026-01"}


def test_invoice_batch_starts_a_flow_of_its_own_for_each_invoice(harness: Harness) -> None:
    run = batch(harness)
    assert [child.data["invoice"]["number"] for child in run.children] == ["R-1", "R-2", "R-3"]
    assert "invoice" not in run.data
    done = [row.output for row in run.rows if row.block_id == "process"]
    assert [{row["block_id"] for row in rows} for rows in done] == [{"validate", "vendor", "rules", "post"}] * 2


def test_invoice_batch_has_nothing_to_do_without_invoices(harness: Harness) -> None:
    run = batch(harness, fetch_invoices={"invoices": []})
    run.expect("completed", ran=["fetch", "summary"])
    assert run.children == []


def test_invoice_batch_takes_one_invoice_after_the_other(harness: Harness) -> None:
    run = batch(harness, post_ledger=takes("10m", {"posted": 1}), validate_invoice={"valid": True})
    run.expect("completed")
    assert moments(run, "post") == [timedelta(minutes=minute) for minute in (0, 10, 20)]


def test_invoice_batch_is_in_the_dead_letters_when_even_the_quarantine_fails(harness: Harness) -> None:
    run = batch(harness, quarantine_invoice=script(PermanentError("full"), {}))
    run.expect("failed", not_ran=["summary"])
    assert len(run.children) == 2
    run.retry().go()
    run.expect("completed")
    assert len(run.children) == 3
    assert len(calls(run, "fetch")) == 1


def test_invoice_batch_cancels_the_invoice_in_progress_with_itself(harness: Harness) -> None:
    run = harness.run(
        "invoice_batch",
        BATCH,
        handlers={"lookup_vendor": silent()},
        sub_sequences=CHILDREN,
        signals=[at(waiting("vendor"), "cancel")],
    )
    run.expect("cancelled", not_ran=["summary"])
    assert [str(child.state) for child in run.children] == ["cancelled"]


def test_invoice_batch_starts_no_invoice_twice_whatever_crashes(harness: Harness) -> None:
    crashed = harness.every_crash(
        "invoice_batch",
        BATCH,
        sub_sequences=CHILDREN,
        points=("before_commit",),
        compare=lambda run: (str(run.state), [str(child.state) for child in run.children], sorted(run.outputs)),
    )
    assert crashed.schedules > 20


def test_process_invoice_checks_the_invoice_and_its_vendor_side_by_side(harness: Harness) -> None:
    parts = {"lookup_vendor": takes("3s", {"vendor": "v-3"}), "validate_invoice": takes("2s", {"valid": True})}
    run = harness.run("process_invoice", INVOICE, handlers=parts)
    run.expect("completed")
    assert moments(run, "rules") == seconds(3)
    assert calls(run, "post")[0].params == {"entries": [{"total": 119.0, "vendor": "v-3"}]}


def test_process_invoice_looks_the_vendor_up_three_times(harness: Harness) -> None:
    run = harness.run("process_invoice", INVOICE, handlers={"lookup_vendor": AWAY})
    run.expect("failed", not_ran=["rules", "post"])
    assert moments(run, "vendor") == seconds(0, 0.5, 1.5)
    assert calls(run, "validate")[0].result == "completed"


# -- data_migration ----------------------------------------------------------------------------------------------------

SOURCE = library.example_input("data_migration")


def checkpoints(run: Run) -> list[Any]:
    return [call.params["data"] for call in calls(run, "mark")]


def test_data_migration_goes_through_all_pages_and_saves_a_checkpoint_after_each(harness: Harness) -> None:
    run = harness.run("data_migration", SOURCE)
    run.expect("completed", data={"cursor": 12, "more": False, "reported": 6000})
    assert [call.params["cursor"] for call in calls(run, "page")] == [None, *range(1, 12)]
    assert checkpoints(run) == [{"cursor": page, "migrated": page * 500} for page in range(1, 13)]
    assert run.outputs["pages"] == {"_iterations": 12}


def test_data_migration_keeps_the_rows_of_the_last_five_pages(harness: Harness) -> None:
    run = harness.run("data_migration", SOURCE)
    for block_id in ("page", "mark"):
        assert [row.iteration for row in run.rows if row.block_id == block_id] == [(page,) for page in range(7, 12)]


def test_data_migration_tries_a_page_five_times_with_longer_pauses(harness: Harness) -> None:
    run = harness.run("data_migration", SOURCE, handlers={"migrate_page": AWAY})
    run.expect("failed", not_ran=["mark", "report"])
    assert moments(run, "page") == seconds(0, 1, 3, 7, 15)


def test_data_migration_goes_on_at_the_page_that_failed(harness: Harness) -> None:
    tries = []

    def page(cursor: int | None) -> dict[str, Any]:
        tries.append(cursor)
        if cursor == 4 and tries.count(4) == 1:
            raise PermanentError("bad row")
        return next_page(cursor)

    run = harness.run("data_migration", SOURCE, handlers={"migrate_page": page})
    run.expect("failed")
    run.retry().go()
    run.expect("completed", data={"cursor": 12})
    assert tries == [None, 1, 2, 3, 4, *range(4, 12)]


def test_data_migration_can_be_paused_between_pages(harness: Harness) -> None:
    run = harness.run(
        "data_migration",
        SOURCE,
        handlers={"migrate_page": takes("1m", next_page)},
        signals=[at("150s", "pause"), at("1h", "resume")],
    )
    run.expect("completed", data={"cursor": 12})
    assert run.elapsed == timedelta(hours=1, minutes=9)


# -- lead_intake -------------------------------------------------------------------------------------------------------

LEAD = library.example_input("lead_intake")


def test_lead_intake_normalises_and_enriches_a_hot_lead_and_gives_it_to_a_person(harness: Harness) -> None:
    run = harness.run("lead_intake", LEAD)
    run.expect("completed", outputs={"normalize": {"email": "ada@example.com", "source": "newsletter"}})
    assert calls(run, "score")[0].params == {
        "company": {"company": "Example Ltd"},
        "verified": True,
        "intent": {"intent": "buy"},
        "source": "newsletter",
    }
    assert calls(run, "slack")[0].params == {"text": "hot lead ada@example.com"}


@pytest.mark.parametrize(("tier", "block_id"), [("warm", "drip"), ("cold", "store")])
def test_lead_intake_routes_by_tier(harness: Harness, tier: str, block_id: str) -> None:
    run = harness.run("lead_intake", {"email": "a@b.c"}, handlers={"score_lead": {"tier": tier}})
    run.expect("completed", outputs={"normalize": {"email": "a@b.c", "source": "direct"}}, not_ran=["assign_ae"])
    assert run.executions[-1].block_id == block_id


def test_lead_intake_stops_at_what_is_no_address(harness: Harness) -> None:
    run = harness.run("lead_intake", {"email": "nobody"})
    run.expect("failed", ran=["validate"])
    assert "not an address" in run.errors()["validate"]


@pytest.mark.parametrize("data", [{}, {"email": 5}])
def test_lead_intake_is_not_started_without_an_address(harness: Harness, data: Any) -> None:
    with pytest.raises(Unprocessable):
        harness.run("lead_intake", data)


def test_lead_intake_asks_for_the_company_twice_while_the_rest_goes_on(harness: Harness) -> None:
    run = harness.run("lead_intake", LEAD, handlers={"clearbit_company": AWAY})
    run.expect("failed", not_ran=["score"])
    assert moments(run, "company") == seconds(0, 0.5)
    assert [call.result for call in calls(run, "verify", "intent")] == ["completed", "completed"]


# -- partner_sync ------------------------------------------------------------------------------------------------------

PARTNER = library.example_input("partner_sync")


def test_partner_sync_takes_the_live_balance(harness: Harness) -> None:
    run = harness.run("partner_sync", PARTNER)
    run.expect("completed", outputs={"shape": {"balance": 1500, "source": "live"}})
    assert calls(run, "metrics")[0].params == {"ok": "live"}


def test_partner_sync_takes_the_cached_balance_after_three_tries(harness: Harness) -> None:
    run = harness.run("partner_sync", PARTNER, handlers={"partner_api_request": AWAY})
    run.expect("completed", outputs={"use_cache": {"balance": 1200, "source": "cache"}}, not_ran=["shape", "later"])
    assert moments(run, "call") == seconds(0, 0.5, 1.5)
    assert calls(run, "metrics")[0].params == {"ok": "fallback"}


def test_partner_sync_comes_back_later_without_a_cache(harness: Harness) -> None:
    run = harness.run("partner_sync", {"account": "a"}, handlers={"partner_api_request": hangs()})
    run.expect("completed", not_ran=["use_cache"])
    assert moments(run, "call") == seconds(0, 5.5, 11.5)
    assert calls(run, "later")[0].params == {"account": "a"}
    assert calls(run, "metrics")[0].result == "completed"


def test_partner_sync_writes_its_metrics_when_nothing_helps(harness: Harness) -> None:
    broken = {"partner_api_request": PermanentError("410"), "schedule_retry": PermanentError("full")}
    run = harness.run("partner_sync", {"account": "a"}, handlers=broken)
    run.expect("failed", ran=["call", "later", "metrics"])


# -- quote -------------------------------------------------------------------------------------------------------------

SKU = library.example_input("quote")


def quote(harness: Harness, **handlers: Any) -> Run:
    """Run the sequence with handlers of an application in place of the two services."""
    document = library.load("quote")
    for block in document["blocks"][:2]:
        block["handler"] = f"{block['id']}_service"
    services = {"price_service": {"amount": 1200}, "stock_service": {"available": True}, **handlers}
    return harness.run(document, SKU, handlers=services)


def test_quote_joins_price_and_stock(harness: Harness) -> None:
    run = quote(harness)
    run.expect("completed", ran=["price", "stock", "offer"], outputs={"offer": {"price": 1200, "available": True}})
    assert calls(run, "price", "stock")[0].params == {"sku": "SKU-1"}


def test_quote_says_not_available_when_the_stock_is_not_known(harness: Harness) -> None:
    run = quote(harness, stock_service={})
    run.expect("completed", outputs={"offer": {"price": 1200, "available": False}})


def test_quote_asks_for_a_price_three_times_and_for_the_stock_once(harness: Harness) -> None:
    run = quote(harness, price_service=hangs())
    run.expect("failed", not_ran=["stock"])
    assert moments(run, "price") == seconds(0, 3.2, 6.6)
    quote(harness, stock_service=AWAY).expect("failed", ran=["price", "stock"])


# -- routed_work -------------------------------------------------------------------------------------------------------

DATASET = library.example_input("routed_work")


def test_routed_work_puts_each_step_on_its_queue(harness: Harness) -> None:
    run = harness.run("routed_work", DATASET)
    run.expect("completed", ran=["prep", "infer", "archive"])
    assert calls(run, "infer")[0].params == {"batch": "s3://bucket/batch-1"}
    assert calls(run, "archive")[0].params == {"result": {"labels": ["cat"]}}
    assert [attempt.queue for attempt in run.attempts] == ["default", "gpu", "eu-west"]


def test_routed_work_fails_when_no_gpu_comes_within_ten_minutes(harness: Harness) -> None:
    run = harness.run("routed_work", DATASET, handlers={"ml_inference": silent()})
    run.expect("failed", not_ran=["archive"])
    assert run.elapsed == timedelta(minutes=10)


def test_routed_work_waits_for_its_european_worker_as_long_as_it_takes(harness: Harness) -> None:
    run = harness.run("routed_work", DATASET, handlers={"store_result": silent()})
    run.expect("waiting", standing={"archive": "ready"})
    run.complete("archive", {"stored": True}).expect("completed")


# -- fulfilment --------------------------------------------------------------------------------------------------------

ORDER = library.example_input("fulfilment")
SECOND = UUID(library.load("fulfilment")["id"])


def test_fulfilment_checks_for_fraud_before_it_ships(harness: Harness) -> None:
    run = harness.run("fulfilment", ORDER)
    run.expect("completed", ran=["reserve", "fraud_check", "ship"])
    assert calls(run, "ship")[0].params == {"reservation": "res-A-1001"}


def test_fulfilment_does_not_ship_what_may_be_fraud(harness: Harness) -> None:
    run = harness.run("fulfilment", ORDER, handlers={"fraud_check": PermanentError("stolen card")})
    run.expect("failed", not_ran=["ship"])


def test_fulfilment_v1_ships_without_a_check(harness: Harness) -> None:
    harness.run("fulfilment_v1", ORDER).expect("completed", ran=["reserve", "ship"])
    run = harness.run("fulfilment_v1", ORDER, handlers={"reserve_stock": PermanentError("sold out")})
    run.expect("failed", ran=["reserve"])


def to_second(run: Run) -> None:
    """Move a flow to the second version."""
    run.migrate(SECOND)


@pytest.mark.parametrize("moment", [before("ship"), after("reserve")])
def test_fulfilment_moves_a_running_flow_of_v1_and_reserves_only_once(harness: Harness, moment: Any) -> None:
    run = harness.run(
        "fulfilment_v1", ORDER, sub_sequences={"fulfilment": "fulfilment"}, signals=[at(moment, to_second)]
    )
    run.expect("completed", ran=["reserve", "fraud_check", "ship"])
    assert run.instance.sequence_id == SECOND


def test_fulfilment_takes_over_a_flow_of_v1_that_waits_for_its_stock(harness: Harness) -> None:
    parts = {"reserve_stock": takes("3h", {"id": "res-1"})}
    run = harness.run(
        "fulfilment_v1",
        ORDER,
        handlers=parts,
        sub_sequences={"fulfilment": "fulfilment"},
        signals=[at("1h", to_second)],
    )
    run.expect("completed", ran=["reserve", "fraud_check", "ship"])
    assert run.elapsed == timedelta(hours=3)


# -- library_index -----------------------------------------------------------------------------------------------------


def test_library_index_quarantines_what_cannot_be_read_and_publishes_after_a_word(harness: Harness) -> None:
    def fingerprint(path: str, **_rest: Any) -> dict[str, Any]:
        if path == "b.py":
            raise PermanentError("no text")
        return {"bytes": 1, "sha256": "0" * 64}

    index = {"module": "m", "is_test": False, "lines": 1, "doc": None, "functions": [], "classes": [], "complexity": []}
    parts = {
        "demo.find_modules": {"paths": ["a.py", "b.py", "c.py"]},
        "demo.fingerprint_module": fingerprint,
        "demo.index_module": lambda path, **_rest: {"path": path, **index},
        "demo.quarantine_module": {},
        "demo.publish_index": {"published": True},
    }
    run = harness.run("library_index", library.example_input("library_index"), handlers=parts)
    run.expect("waiting", standing={"approval": "gate"})
    assert [call.params["path"] for call in calls(run, "quarantine")] == ["b.py"]
    assert sorted(call.params["path"] for call in calls(run, "index")) == ["a.py", "c.py"]
    run.answer("approval", "publish").expect("completed")
    assert calls(run, "publish")[0].params["directory"] == "build/report"


def test_library_index_publishes_nothing_that_is_left(harness: Harness) -> None:
    run = harness.run(
        "library_index",
        library.example_input("library_index"),
        handlers={"demo.find_modules": {"paths": []}},
    )
    run.answer("approval", "leave").expect("completed", ran=["find", "approval"])
