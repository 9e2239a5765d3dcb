"""A block that runs another sequence (§3.8)."""

from typing import TYPE_CHECKING

from tests.model.reference.places import Json, Place
from tests.model.reference.steps import CANCEL, SOME_TEXT
from tests.model.reference.tasks import CANCELLED, COMPLETED, FAILED, Ended, Stand, Waits
from tests.model.reference.values import BadTemplate, render

if TYPE_CHECKING:
    from tests.model.reference.interpreter import Flow


def run_sub_sequence(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run another sequence as a child, and wait for it."""
    failed = Ended(FAILED, block["id"], block["id"], SOME_TEXT)
    stand = Stand((block["id"], place.iteration), is_step=False, in_process=False, place=place)
    while flow.pausing:
        stand.phase = "held"
        if (yield stand) == CANCEL:
            return Ended(CANCELLED)
    try:
        given = render(block.get("input"), flow.view(block["id"], place))
    except BadTemplate as error:
        return Ended(FAILED, block["id"], block["id"], str(error))
    if not flow.family.call(flow, stand, block["sequence_name"], {} if given is None else given):
        return failed
    stand.phase = "child"
    if (yield stand) == CANCEL:
        if stand.child is not None:
            flow.family.cancel(stand.child)
        return Ended(CANCELLED)
    if stand.child.state != COMPLETED:
        return failed
    flow.add_row(block["id"], place, [{"block_id": r.block_id, "output": r.output} for r in stand.child.rows])
    return Ended(COMPLETED)
