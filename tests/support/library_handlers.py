"""The handlers of the ready sequences, for real workers: each returns at once what `tests.support.library` says."""

from collections.abc import Callable
from typing import Any

from sequences.handlers import BUILTIN_HANDLERS
from tests.support.library import PARTS
from workers import handler


def _returns(output: Any) -> Callable[[Any], Any]:
    def give(params: Any) -> Any:
        return output

    return give


for _name, _part in PARTS.items():
    if _name not in BUILTIN_HANDLERS and "://" not in _name:
        handler(_name)(_part if callable(_part) else _returns(_part))

_PLAN = [{"type": "step", "id": "rows", "handler": "noop"}, {"type": "step", "id": "columns", "handler": "noop"}]

handler("model")(_returns({**PARTS["llm_call"], "blocks": _PLAN}))
handler("price_service")(_returns({"amount": 1200}))
handler("stock_service")(_returns({"available": True}))
