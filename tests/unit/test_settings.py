"""Settings as the environment gives them."""

from datetime import timedelta

import pytest

from orchestrator.settings import Settings


@pytest.mark.parametrize(
    ("text", "meant"),
    [("9", 9.0), ("0.5", 0.5), ("9s", 9.0), ("500ms", 0.5), ("PT9S", 9.0)],
)
def test_durations_are_read_as_people_write_them(monkeypatch: pytest.MonkeyPatch, text: str, meant: float) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DEAD_AFTER", text)
    assert Settings().dead_after == timedelta(seconds=meant)


@pytest.mark.parametrize("text", ["soon", "-", "9 parsecs"])
def test_a_duration_that_says_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DEAD_AFTER", text)
    with pytest.raises(ValueError, match="dead_after"):
        Settings()


@pytest.mark.parametrize("text", ["yes", "on", "t", "2"])
def test_s11_no_other_word_than_1_and_true_lifts_the_block_of_private_addresses(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ORCH8_ALLOW_INTERNAL_URLS", text)
    with pytest.raises(ValueError, match="expected `true` or `1`"):
        Settings()


@pytest.mark.parametrize("text", ["0", "false", "no", "off", "OFF"])
def test_s11_what_means_no_keeps_the_block_of_private_addresses(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ORCH8_ALLOW_INTERNAL_URLS", text)
    assert not Settings().allow_internal_urls


def test_a_second_secret_of_webhooks_without_a_first_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_WEBHOOK_SECOND_SECRET", "the next one")
    with pytest.raises(ValueError, match="needs ORCHESTRATOR_WEBHOOK_SECRET"):
        Settings()
    monkeypatch.setenv("ORCH8_WEBHOOK_SECRET", "the first one")
    assert Settings().webhook_second_secret == "the next one"


def test_a_bare_name_of_somebody_else_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "not ours")
    assert Settings().api_key == ""


@pytest.mark.parametrize("name", ["ORCHESTRATOR_API_KEY", "ORCH8_API_KEY"])
def test_both_families_of_names_are_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "key")
    assert Settings().api_key == "key"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ORCH8_ALLOW_INTERNAL_URLS", "allow_internal_urls"),
        ("ORCH8_REQUIRE_TENANT_HEADER", "require_tenant_header"),
        ("ORCH8_BATCH_SIZE", "loop_batch"),
        ("ORCH8_WORKER_REAPER_STALE_SECS", "task_lease"),
        ("ORCH8_MODEL_PRICING", "model_pricing"),
        ("ORCH8_WEBHOOK_URLS", "webhook_urls"),
    ],
)
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str, field: str) -> None:
    unset = getattr(Settings(), field)
    monkeypatch.setenv(name, "")
    assert getattr(Settings(), field) == unset


def test_an_empty_variable_leaves_its_other_name_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_API_KEY", "")
    monkeypatch.setenv("ORCH8_API_KEY", "key")
    assert Settings().api_key == "key"


@pytest.mark.parametrize("name", ["ORCHESTRATOR_TASK_LEASE", "ORCH8_WORKER_REAPER_STALE_SECS"])
def test_api_19_the_lease_of_a_task_is_set_by_either_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    assert Settings().task_lease == timedelta(seconds=3)


@pytest.mark.parametrize(
    ("variable", "text", "name", "meant"),
    [
        ("ORCH8_HTTP_ADDR", "h:1", "http_address", "h:1"),
        ("ORCH8_DATABASE_URL", "postgresql://h/d", "database_url", "postgresql://h/d"),
        ("ORCH8_RUN_MIGRATIONS", "false", "run_migrations", False),
        ("ORCH8_TICK_INTERVAL_MS", "250", "tick_interval_ms", 250),
        ("ORCH8_BATCH_SIZE", "7", "loop_batch", 7),
        ("ORCH8_MAX_CONCURRENT_STEPS", "9", "max_concurrent_steps", 9),
        ("ORCH8_MAX_INSTANCES_PER_TENANT", "3", "max_instances_per_tenant", 3),
        ("ORCH8_WORKER_REAPER_TICK_SECS", "30", "task_reaper_tick", timedelta(seconds=30)),
        ("ORCH8_NODE_REAPER_TICK_SECS", "61", "node_reaper_tick", timedelta(seconds=61)),
        ("ORCH8_NODE_REAPER_STALE_SECS", "121", "node_stale_after", timedelta(seconds=121)),
        ("ORCH8_EXTERNALIZE_THRESHOLD", "0", "externalize_threshold", 0),
        ("ORCH8_INSTANCE_RETENTION_SECS", "60", "instance_retention", timedelta(seconds=60)),
        ("ORCH8_INSTANCE_RETENTION_SECS", "0", "instance_retention", None),
        ("ORCH8_REQUIRE_TENANT_HEADER", "false", "require_tenant_header", False),
        ("ORCH8_ALLOW_NO_TENANT_ISOLATION", "1", "allow_no_tenant_isolation", True),
        ("ORCH8_CORS_ORIGINS", "http://a, http://b", "cors_origins", ("http://a", "http://b")),
        ("ORCH8_ALLOW_INTERNAL_URLS", "1", "allow_internal_urls", True),
        ("ORCH8_ALLOW_DEPRECATED_INSTANCES", "true", "allow_deprecated_instances", True),
        ("ORCH8_POLL_ANY_QUEUE", "true", "poll_any_queue", True),
        ("ORCH8_MAX_CONCURRENT_REQUESTS", "0", "max_concurrent_requests", 0),
        ("ORCH8_LOG_LEVEL", "warn", "log_level", "WARNING"),
        ("ORCH8_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("ORCH8_ENV_LABEL", "blue", "env_label", "blue"),
        ("ORCH8_ENV_COLOR", "#00f", "env_color", "#00f"),
    ],
)
def test_api_19_every_variable_of_the_contract_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, meant: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Settings(), name) == meant
