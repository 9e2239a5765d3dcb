"""Who plays the handlers of the ready sequences, in memory and in real workers.

Limits, pools and breakers are not what these parts are about; neither are the wires of models, tools and gRPC services:
`llm_call`, `tool_call`, `http_request` and `grpc://…` are played like any handler of an application.
"""

from datetime import timedelta
from typing import Any, Final

from orchestrator.testing import Execution, Run
from workers import PermanentError

PRICE: Final = "grpc://pricing.internal:50051/pricing.Pricing.Quote"
STOCK: Final = "grpc://stock.internal:50052/stock.Stock.Check"
BAD_INVOICE: Final = "R-2"


def says(content: str) -> dict[str, Any]:
    """What a model answers that has nothing to look up."""
    return {"message": {"role": "assistant", "content": content}}


def asks(tool: str, arguments: str = "{}") -> dict[str, Any]:
    """What a model answers that wants a tool called."""
    call = {"id": "call_1", "type": "function", "function": {"name": tool, "arguments": arguments}}
    return {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}


def observe(message: dict[str, Any], answer: Any, iteration_outputs: Any) -> dict[str, Any]:
    """Look at a turn of the agent: it is done when it has an answer."""
    return {"messages": [message], "done": answer is not None}


def validate_invoice(invoice: dict[str, Any]) -> dict[str, Any]:
    """Check an invoice; one of them is bad."""
    if invoice["number"] == BAD_INVOICE:
        raise PermanentError(f"{invoice['number']} has no total", code="no_total")
    return {"valid": True}


def next_page(cursor: int | None) -> dict[str, Any]:
    """Migrate one page of 500 rows; there are 12 pages."""
    page = (cursor or 0) + 1
    return {"cursor": page, "more": page < 12, "migrated": page * 500}


INVOICES: Final = [
    {"number": f"R-{number}", "vendor_id": f"v-{number}", "total": 10.0 * number} for number in (1, 2, 3)
]

PARTS: Final[dict[str, Any]] = {
    # payment_failover, dunning, payment_failed
    "stripe_charge": {"charge_id": "ch_stripe"},
    "braintree_charge": {"charge_id": "ch_braintree"},
    "adyen_charge": {"charge_id": "ch_adyen"},
    "record_transaction": {"recorded": True},
    "retry_charge": {"paid": False},
    "suspend_account": {"suspended": True},
    "extend_grace": {"grace_days": 14},
    "notify_manager": {},
    "load_customer": {"customer": {"name": "Ada", "email": "ada@example.com"}},
    # messages
    "send_email": {"sent": True},
    "send_ses": {"id": "ses-1"},
    "send_sendgrid": {"id": "sendgrid-1"},
    "send_twilio": {"id": "twilio-1"},
    "send_vonage": {"id": "vonage-1"},
    "send_fcm": {"id": "fcm-1"},
    "record_delivery": lambda **delivered: delivered,
    "enrich_company": {"company": "Example Ltd"},
    "check_reply": {"replied": False},
    "update_crm": {},
    "create_account": {"account_id": "acc-1"},
    "provision": lambda **asked: {"provisioned": asked["kind"]},
    "assign_csm": {"csm": "Bo"},
    "setup_sso": {"sso": True},
    "schedule_kickoff": {},
    "enable_features": {},
    "send_tour": lambda steps: {"tour": steps},
    "track_event": lambda **event: event,
    "send_verification": {},
    "remind_user": {},
    # agents
    "agent_init": lambda task: {"messages": [{"role": "user", "content": task}], "done": False},
    "llm_call": says("66 steps"),
    "tool_call": {"result": {"hits": []}},
    "run_calculator": {"value": 66},
    "run_query": {"rows": []},
    "agent_observe": observe,
    "save_session_answer": lambda answer: {"saved": answer},
    "gather_sources": {"sources": ["a", "b"]},
    "call_llm": {"text": "range is limited by mass", "tool_calls": []},
    "execute_tools": {},
    "analyze": {"needs_more_data": False},
    "publish_report": {"url": "https://reports.example/1"},
    "classify_ticket": {"category": "billing", "confidence": 0.6},
    "draft_response": {"draft": "We are looking into it."},
    "request_human_review": {"asked": True},
    "send_response": {"sent": True},
    # pipelines
    "fetch_invoices": {"invoices": INVOICES},
    "validate_invoice": validate_invoice,
    "lookup_vendor": lambda vendor_id: {"vendor": vendor_id},
    "apply_rules": lambda invoice, vendor: {"entries": [{"total": invoice["total"], **vendor}]},
    "post_ledger": lambda entries: {"posted": len(entries)},
    "quarantine_invoice": {},
    "batch_report": {"reported": True},
    "partner_api_request": {"balance": 1500},
    "schedule_retry": {},
    "record_metrics": {},
    "clearbit_company": {"company": "Example Ltd"},
    "verify_email": {"valid": True},
    "detect_intent": {"intent": "buy"},
    "score_lead": {"tier": "hot"},
    "assign_ae": {},
    "slack_alert": {},
    "start_drip": {},
    "store_crm": {},
    PRICE: {"amount": 1200},
    STOCK: {"available": True},
    "prepare_batch": {"uri": "s3://bucket/batch-1"},
    "ml_inference": {"labels": ["cat"]},
    "store_result": {},
    "reserve_stock": lambda order: {"id": f"res-{order}"},
    "fraud_check": {"risk": 0.1},
    "ship_order": {"shipped": True},
    "migrate_page": next_page,
    "migration_report": lambda total: {"reported": total},
    # releases and oversight
    "run_ci": {"summary": "412 passed"},
    "diff_report": {"files": 3},
    "deploy_release": {},
    "notify_backup_reviewer": {},
    "audit_log": {"logged": True},
    "redact_pii": {},
    "sync_dwh": {},
    "page_oncall": {},
    "do_work": {"done": True},
    "vendor_plugin": {"ref": "V-9"},
    "book_order": {},
}
"""What each handler returns when all goes well."""


def calls(run: Run, *block_ids: str) -> list[Execution]:
    """Give the calls of the handlers of these blocks, in order."""
    return [execution for execution in run.executions if execution.block_id in block_ids]


def moments(run: Run, block_id: str) -> list[timedelta]:
    """Say how long after the start of the run a block was executed, in whole milliseconds."""
    start = run.clock - run.elapsed
    unit = timedelta(milliseconds=1)
    return [round((execution.at - start) / unit) * unit for execution in calls(run, block_id)]
