"""The client with what surrounds flows: secrets, limits, what starts them, workers, webhooks."""

from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import pytest

from orchestrator import errors
from orchestrator.client import Client, Renewal

pytestmark = pytest.mark.shares_database


def test_credentials_are_stored_changed_and_removed(client: Client) -> None:
    renewal = Renewal(url="https://login.example.invalid/", token="r3", expires_at=datetime(2099, 1, 1, tzinfo=UTC))
    made = client.create_credential("mail", '{"token": "t"}', kind="oauth2", renewal=renewal, description="d")
    assert (made.name, made.kind, made.has_refresh_token, made.refresh_url) == ("mail", "oauth2", True, renewal.url)
    assert client.credentials() == (made,)
    assert "r3" not in repr(renewal)
    with pytest.raises(errors.AlreadyExists):
        client.create_credential("mail", "v")
    assert client.change_credential("mail", {"enabled": False}).enabled is False
    assert client.credential("mail").enabled is False
    client.delete_credential("mail")
    with pytest.raises(errors.NotFound):
        client.credential("mail")
    with pytest.raises(errors.InvalidArgument, match="time zone"):
        client.create_credential("x", "v", expires_at=datetime(2099, 1, 1))  # noqa: DTZ001


def test_pools_limits_and_breakers(client: Client) -> None:
    pool = client.create_pool("senders", strategy="weighted")
    assert (client.list_pools(), client.get_pool(pool.id)) == ((pool,), pool)
    added = client.add_resource(pool.id, "a@x", daily_cap=10, warmup_start=date(2026, 2, 28), warmup_days=14)
    assert (added.name, added.daily_cap, added.warmup_start) == ("a@x", 10, date(2026, 2, 28))
    changed = client.change_resource(pool.id, added.id, {"enabled": False})
    assert (changed.enabled, client.list_resources(pool.id)) == (False, (changed,))
    client.remove_resource(pool.id, added.id)
    client.delete_pool(pool.id)
    with pytest.raises(errors.NotFound):
        client.list_resources(pool.id)
    limit = client.set_rate_limit("mail/eu", 5, 60)
    assert (client.list_rate_limits(), client.get_rate_limit("mail/eu")) == ((limit,), limit)
    client.delete_rate_limit("mail/eu")
    with pytest.raises(errors.NotFound):
        client.delete_rate_limit("mail/eu")
    breaker = client.configure_breaker("https://x/y", failure_threshold=2, on_open="defer")
    assert (client.list_breakers(), client.get_breaker("https://x/y")) == ((breaker,), breaker)
    client.reset_breaker("https://x/y")
    assert (breaker.state, breaker.on_open, breaker.opened_at) == ("closed", "defer", None)


def test_triggers(client: Client, greet: UUID) -> None:
    made = client.create_trigger("orders", "greet", secret="gehört uns", config={"idempotency_key": "order"})
    assert (made.secret, client.list_triggers(), client.get_trigger("orders")) == ("[REDACTED]", (made,), made)
    first, again = (client.fire_trigger("orders", {"order": 7}, secret="gehört uns") for _ in range(2))
    assert (first.deduplicated, again.deduplicated, again.instance_id) == (False, True, first.instance_id)
    assert client.get(first.instance_id).data == {"order": 7}
    for secret in (None, "wrong"):
        with pytest.raises(errors.NotAuthorized, match="another secret"):
            client.fire_trigger("orders", secret=secret)
    changed = client.change_trigger("orders", {"enabled": False, "secret": None})
    assert (changed.enabled, changed.secret) == (False, None)
    with pytest.raises(errors.InvalidArgument, match="disabled"):
        client.fire_trigger("orders")
    client.delete_trigger("orders")
    with pytest.raises(errors.NotFound):
        client.get_trigger("orders")


def test_schedules(client: Client, greet: UUID) -> None:
    made = client.create_schedule(greet, "0 0 29 2 *", metadata={"a": 1}, overlap_policy="skip")
    (found,) = client.list_schedules()
    assert (found, found.next_fire_at) == (client.get_schedule(made.id), made.next_fire_at)
    assert (found.sequence_id, found.metadata, found.overlap_policy) == (greet, {"a": 1}, "skip")
    changed = client.change_schedule(made.id, {"timezone": "Europe/Berlin", "enabled": False})
    assert (changed.enabled, changed.timezone) == (False, "Europe/Berlin")
    fires = client.next_fires(made.id, 2)
    assert [(fire.month, fire.day, fire.hour) for fire in fires] == [(2, 28, 23)] * 2
    with pytest.raises(errors.InvalidArgument, match="cron_expr"):
        client.create_schedule(greet, "every day")
    client.delete_schedule(made.id)
    with pytest.raises(errors.NotFound):
        client.next_fires(made.id)


def test_versions_are_promoted_and_withdrawn(client: Client, greet: UUID) -> None:
    assert client.promote("greet").id == greet
    client.unpublish("greet")
    with pytest.raises(errors.InvalidArgument, match="unpublished"):
        client.promote("greet", version=1)
    client.unpublish("greet", delete=True)
    with pytest.raises(errors.NotFound):
        client.get_sequence(greet)


def test_push_queues_and_administration_of_workers(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match="push_url"):
        client.push_queue("mail", "http://127.0.0.1/")
    assert client.list_dispatch() == ()
    with pytest.raises(errors.NotFound):
        client.poll_queue("mail")
    assert "noop" in client.handlers().builtin
    told = client.tell_worker("w/1", "place", {"zone": "b"})
    assert (client.list_commands("w/1"), told.payload) == ((told,), {"zone": "b"})
    client.delete_command(told.id)
    assert client.list_commands("w/1") == ()
    pin = client.pin_version("a/b", "1.4.2")
    assert (client.list_pins(), pin.min_version) == ((pin,), "1.4.2")
    client.unpin_version("a/b")
    rule = client.route("paint", "gpu", match_queue="slow", priority=7)
    assert (client.list_routes("paint"), client.get_route(rule.id)) == ((rule,), rule)
    client.delete_route(rule.id)
    assert client.list_routes() == ()


def test_webhooks_that_were_not_sent(client: Client) -> None:
    assert (client.list_webhooks(), client.list_deliveries(delivered=False, error_class="dns")) == ((), ())
    for act in (client.preview_redelivery, client.redeliver, client.delete_webhook, client.get_delivery):
        with pytest.raises(errors.NotFound):
            act(uuid4())
