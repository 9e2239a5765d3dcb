"""Instances that single requests ask for, begun together: those that arrive at the same time share a transaction.

Most of what one instance costs by itself is the transaction around it: its round trips, and its turn at the disk. Of a
group no request fails for another one: what is refused is left out before, and a transaction that fails is undone and
each instance begun alone. Only an answer that is lost on the way to the store fails all of them, for nothing is known.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from uuid import UUID

import structlog

from orchestrator.api.creation import check_startable, heads_of, new_instance
from orchestrator.api.gathering import together_or_alone
from orchestrator.api.instance_shapes import CreateInstance
from orchestrator.api.services import Services
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import NewInstance, Started
from orchestrator.store.definitions import Head
from orchestrator.store.session import patiently

log = structlog.get_logger()


async def admit(serving: Services, request: CreateInstance) -> Started:
    """Begin an instance; returns when it is committed.

    Raises:
        RequestError: It may not be started as it is.
        StoreUnavailable: The store did not answer; whether it was begun is unknown.
    """
    return await serving.creations.do(partial(begin, serving), request)


def begin(serving: Services, requests: Sequence[CreateInstance]) -> Sequence[Started | Exception]:
    """Begin instances, each as if it were alone; gives what became of each, or why it may not be started."""
    ids = {request.sequence_id for request in requests}
    heads = serving.heads.seen(ids)
    if heads is not None:
        started = _begun_at_once(serving, requests, heads)
        if started is not None:
            return started
        serving.heads.rest(ids)
    return _begun(serving, requests)


def _begun_at_once(
    serving: Services, requests: Sequence[CreateInstance], heads: Mapping[UUID, Head]
) -> list[Started] | None:
    """Begin all of them in one message, or none, and give None.

    Args:
        heads: As they were last seen. They may be out of date, so nothing is refused by them.
    """
    wanted = _checked(serving, requests, heads)
    admitted = [new for new in wanted if isinstance(new, NewInstance)]
    if len(admitted) < len(requests):
        return None
    try:
        return serving.engine.start_at_once(admitted, heads.values())
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - one of them cannot be committed: it is found when they are begun alone
        log.info("not_begun_at_once", count=len(requests), error=type(error).__name__)
        return None


def _begun(serving: Services, requests: Sequence[CreateInstance]) -> list[Started | Exception]:
    heads = heads_of(serving, (request.sequence_id for request in requests))
    wanted = _checked(serving, requests, heads)
    admitted = [new for new in wanted if isinstance(new, NewInstance)]
    begun = iter(together_or_alone(lambda some: patiently(lambda: serving.engine.start_many(some)), admitted))
    return [next(begun) if isinstance(new, NewInstance) else new for new in wanted]


def _checked(
    serving: Services, requests: Sequence[CreateInstance], heads: Mapping[UUID, Head]
) -> list[NewInstance | Exception]:
    """Give each request to be begun, or why it may not be started."""
    wanted: list[NewInstance | Exception] = []
    for request in requests:
        try:
            head = heads.get(request.sequence_id)
            head = check_startable(serving, head, request.tenant_id, f"sequence {request.sequence_id}")
            new = new_instance(serving, request, head, tenant_id=request.tenant_id, namespace=request.namespace)
        except Exception as refusal:  # noqa: BLE001 - of this request alone, which is told
            wanted.append(refusal)
        else:
            wanted.append(new)
    return wanted
