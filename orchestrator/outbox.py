"""The door for events on their way outside: sending what is due, and what administrators do with the rest.

An event is sent at least once. Its claim is committed before it is sent and ends by itself, so several services share
the work and none waits for another; what came of a try is committed after it (contract, api §16).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from orchestrator.egress import Egress
from orchestrator.errors import Conflict, NotFound, UpstreamFailed
from orchestrator.posting import Posted, Posting, post_all
from orchestrator.settings import Settings
from orchestrator.store import counters, webhooks
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.webhooks import Attempt, Claimed, Delivery, DeliveryFilter, Webhook
from sequences.json_values import json_bytes

log = structlog.get_logger()

RETRY_AFTER: Final = (timedelta(seconds=0.5), timedelta(seconds=1), timedelta(seconds=2))
LEASE: Final = timedelta(seconds=30)
"""Three times as long as a try may take; then the sender counts as dead."""
KEPT_ATTEMPTS: Final = 10_000
KEPT_FOR: Final = timedelta(days=7)
SENT, FAILED, PARKED = "orch8_webhooks_sent", "orch8_webhooks_failed", "orch8_webhooks_parked"


class Outbox:
    """Events for the addresses of `webhook_urls`. A `tenant` argument is the scope of the caller: None sees all.

    Args:
        new_id: Makes ids that sort by time.
        egress: The way out; one as the settings allow if None.
    """

    def __init__(
        self, store: PostgresStore, new_id: Callable[[], UUID], settings: Settings, egress: Egress | None = None
    ) -> None:
        self._store = store
        self._new_id = new_id
        self._secret = settings.webhook_secret or None
        self._second_secret = settings.webhook_second_secret or None
        self._egress = egress or Egress(allow_internal=settings.allow_internal_urls)

    def send_due(self, url: str, limit: int) -> int:
        """Send what one address is due, at the same time; returns how many events that were."""
        with self._store.transaction() as tx:
            claimed = webhooks.claim_due(tx, url, lease=LEASE, limit=limit)
            began = tx.now() if claimed else None
        if began is None:
            return 0
        self._settle(claimed, post_all(self._egress, [self._posting(each.webhook) for each in claimed]), began)
        return len(claimed)

    def next_due(self, url: str) -> timedelta | None:
        """Say how long until something is due to an address; None if nothing waits for it."""
        with self._store.transaction(is_single=True) as tx:
            return webhooks.next_due(tx, url)

    def redeliver(self, webhook_id: UUID, *, tenant: str | None) -> UUID:
        """Send an event now, whatever its turn; returns the id of the delivery.

        Raises:
            NotFound: It was sent, or never was.
            Conflict: Somebody is sending it.
            UpstreamFailed: It was not taken; it stays as it was.
        """
        with self._store.transaction() as tx:
            claimed = webhooks.claim(tx, webhook_id, tenant, lease=LEASE)
            if claimed is None and webhooks.get(tx, webhook_id, tenant) is not None:
                raise Conflict(f"webhook {webhook_id} is being sent")
            began = tx.now()
        if claimed is None:
            raise NotFound(f"webhook {webhook_id}")
        [posted] = post_all(self._egress, [self._posting(claimed.webhook)])
        delivery_id = self._new_id()
        self._settle([claimed], [posted], began, delivery_id=delivery_id)
        if posted.error is not None:
            raise UpstreamFailed(posted.excerpt or posted.error)
        return delivery_id

    def find(self, limit: int, *, tenant: str | None) -> list[Webhook]:
        """List events that were not sent yet, the oldest first."""
        with self._store.reading(tenant) as tx:
            return webhooks.find(tx, tenant, limit)

    def get(self, webhook_id: UUID, *, tenant: str | None) -> Webhook:
        """Read one event; NotFound if it was sent, or never was."""
        with self._store.reading(tenant) as tx:
            found = webhooks.get(tx, webhook_id, tenant)
        if found is None:
            raise NotFound(f"webhook {webhook_id}")
        return found

    def delete(self, webhook_id: UUID, *, tenant: str | None) -> None:
        """Drop an event; NotFound if it is not there."""
        with self._store.transaction() as tx:
            if webhooks.get(tx, webhook_id, tenant) is None or not webhooks.remove(tx, [webhook_id]):
                raise NotFound(f"webhook {webhook_id}")

    def deliveries(self, which: DeliveryFilter, limit: int, *, tenant: str | None) -> list[Delivery]:
        """List deliveries, the one tried last first."""
        with self._store.reading(tenant) as tx:
            return webhooks.deliveries(tx, tenant, which, limit)

    def attempts_of(self, delivery_id: UUID, *, tenant: str | None) -> list[Attempt]:
        """Read the tries of one delivery; NotFound if there is none, or it is forgotten."""
        with self._store.reading(tenant) as tx:
            found = webhooks.attempts_of(tx, delivery_id, tenant)
        if not found:
            raise NotFound(f"webhook delivery {delivery_id}")
        return found

    def forget(self) -> int:
        """Remove tries that are old or too many; returns how many."""
        with self._store.transaction() as tx:
            return webhooks.forget(tx, older_than=KEPT_FOR, beyond=KEPT_ATTEMPTS)

    @property
    def is_signing(self) -> bool:
        """Whether what is sent is signed."""
        return self._secret is not None

    def _posting(self, webhook: Webhook) -> Posting:
        return Posting(
            url=webhook.url,
            body=json_bytes(webhook.payload),
            secret=self._secret,
            second_secret=self._second_secret,
        )

    def _settle(
        self,
        claimed: Sequence[Claimed],
        posted: Sequence[Posted],
        began: datetime,
        *,
        delivery_id: UUID | None = None,
    ) -> None:
        """Commit what came of tries.

        Args:
            delivery_id: Of a redelivery, which is not retried: a new one, and its event keeps its state.
        """
        counts: Counter[str] = Counter()
        attempts: list[Attempt] = []
        with self._store.transaction() as tx:
            for claim, result in sorted(zip(claimed, posted, strict=True), key=lambda pair: pair[0].webhook.id):
                webhook = claim.webhook
                delivery = delivery_id or webhook.delivery_id or self._new_id()
                attempts.append(self._attempt(webhook, result, delivery, began, is_first=delivery_id is not None))
                if result.error is None:
                    counts[SENT] += webhooks.remove(tx, [webhook.id])
                    continue
                status, after = _what_next(webhook, result) if delivery_id is None else (_former(webhook), timedelta(0))
                error = result.excerpt or result.error
                is_ours = webhooks.put_back(tx, claim, status=status, delivery_id=delivery, error=error, after=after)
                counts[FAILED] += 1
                if is_ours and status == "parked" != webhook.status:
                    counts[PARKED] += 1
                    log.warning("webhook_parked", webhook_id=str(webhook.id), error_class=str(result.error))
            webhooks.record(tx, attempts)
            counters.add(tx, counts)

    def _attempt(
        self, webhook: Webhook, result: Posted, delivery_id: UUID, began: datetime, *, is_first: bool
    ) -> Attempt:
        return Attempt(
            id=self._new_id(),
            delivery_id=delivery_id,
            url=webhook.url,
            event_type=webhook.event_type,
            instance_id=webhook.instance_id,
            attempt_number=1 if is_first else webhook.attempts + 1,
            attempted_at=began,
            duration_ms=result.duration_ms,
            success=result.error is None,
            status_code=result.status,
            error_class=result.error,
            error_excerpt=result.excerpt,
            signed=self.is_signing,
        )


def _what_next(webhook: Webhook, result: Posted) -> tuple[str, timedelta]:
    """Give the state after a failed try, and how long until the next one."""
    if result.is_final or webhook.attempts >= len(RETRY_AFTER):
        return "parked", timedelta(0)
    return "pending", RETRY_AFTER[webhook.attempts]


def _former(webhook: Webhook) -> str:
    return "parked" if webhook.status == "parked" else "pending"
