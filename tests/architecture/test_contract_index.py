"""The index of the contract is whole, and tests name sections that exist."""

import pytest

from tests.contract_coverage import coverage, read_index, section_of

INDEX = read_index()


def test_every_section_promises_something_or_says_why_not() -> None:
    for number, section in INDEX["sections"].items():
        assert section.get("rules") or section.get("deferred"), number
        assert bool(section.get("deferred")) == bool(section.get("reason")), number


def test_sections_are_in_order() -> None:
    numbers = [tuple(map(int, number.split("."))) for number in INDEX["sections"]]
    assert numbers == sorted(numbers)


def test_every_test_that_names_a_section_names_one_that_exists() -> None:
    assert coverage().strays == []


@pytest.mark.parametrize("number", ["2.3", "6.1", "7", "15.1", "15.2", "16"])
def test_sections_of_the_language_are_tested(number: str) -> None:
    assert len(next(section for section in coverage().sections if section.number == number).tests) >= 3


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("test_s3_3_first_branch_wins", "3.3"),
        ("test_s2_3_64_levels", "2.3"),
        ("test_api_10_5_retry", "api.10.5"),
        ("test_s99_nothing", None),
        ("test_words_alone", ""),
    ],
)
def test_names_lead_to_sections(name: str, number: str | None) -> None:
    assert section_of(name, INDEX["sections"], INDEX["api"]) == number
