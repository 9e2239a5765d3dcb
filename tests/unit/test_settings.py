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


def test_a_bare_name_of_somebody_else_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "not ours")
    assert Settings().api_key == ""


@pytest.mark.parametrize("name", ["ORCHESTRATOR_API_KEY", "ORCH8_API_KEY"])
def test_both_families_of_names_are_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "key")
    assert Settings().api_key == "key"


@pytest.mark.parametrize("name", ["ORCHESTRATOR_TASK_LEASE", "ORCH8_WORKER_REAPER_STALE_SECS"])
def test_api_19_the_lease_of_a_task_is_set_by_either_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    assert Settings().task_lease == timedelta(seconds=3)
