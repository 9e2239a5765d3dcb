"""Binding a new instance to a session (sequences contract §8.6)."""

from uuid import UUID

from orchestrator.api.instance_shapes import StartInstance
from orchestrator.api.services import Services
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import sessions
from orchestrator.store.session import Transaction
from orchestrator.store.sessions import Session


def session_to_bind(serving: Services, request: StartInstance, tenant_id: str) -> UUID | None:
    """Find the session a request names, by id or else by key; None if it names none.

    Raises:
        NotFound: The tenant has no such session.
        InvalidArgument: It is not active; if its time has passed, it is now stored as expired.
    """
    if request.session_id is None and request.session_key is None:
        return None
    with serving.store.transaction() as tx:
        found = _find(tx, request, tenant_id)
        if found is not None and found.state == "expired":
            sessions.put_state(tx, found.id, found.state)
    if found is None:
        raise NotFound(f"session {request.session_id or request.session_key}")
    if found.state != "active":
        raise InvalidArgument(f"session {found.id} is not active, its state: {found.state}")
    return found.id


def _find(tx: Transaction, request: StartInstance, tenant_id: str) -> Session | None:
    if request.session_id is not None:
        return sessions.get(tx, request.session_id, tenant_id)
    return sessions.by_key(tx, tenant_id, request.session_key or "")
