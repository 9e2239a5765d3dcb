"""The hands: they claim ready steps, run handlers and report outcomes.

from workers import handler

@handler("charge_card")
def charge_card(order_id: str, amount: int) -> dict: ...
"""

from workers.app import celery
from workers.context import StepContext
from workers.failures import PermanentError, RetryableError, StepError
from workers.registry import handler

__all__ = ["PermanentError", "RetryableError", "StepContext", "StepError", "celery", "handler"]
