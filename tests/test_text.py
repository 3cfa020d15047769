"""Spellings of one answer agree, and those of two answers do not."""

import pytest

from calib_utils.text import NO_ANSWER, canonical_text, capitalised, fold, is_bare_number, number_with_unit


def test_case_accents_and_blanks_do_not_tell_names_apart():
    assert fold("  São TOMÉ ") == fold("sao tome") == "sao tome"
    assert capitalised("of what is iron made?") == "Of what is iron made?" and capitalised("éTAT") == "ÉTAT"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The United States (USA)", "united states"),
        ("Washington, D.C.", "washington dc"),
        ("Trinidad & Tobago", "trinidad and tobago"),
        ("Côte d'Ivoire.", "cote divoire"),
        ("the the end", "end"),
        ("1,000 kilometres", "1000 km"),
        ("one thousand", "1000"),
        ("", NO_ANSWER),
        ("...", NO_ANSWER),
        ("Question: Who?", NO_ANSWER),
    ],
)
def test_the_canonical_form_of_an_answer(text, expected):
    assert canonical_text(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("12", "12"),
        ("-2.50", "-2.5"),
        ("$5", "5 dollar"),
        ("5 dollars", "5 dollar"),
        ("3.2 million people", "3200000 people"),
        ("two thousand", "2000"),
        ("40 %", "40 %"),
        ("40 percent", "40 %"),
        ("5 apples", None),
        ("five or six", None),
        ("", None),
    ],
)
def test_numbers_come_with_the_units_that_are_known(text, expected):
    assert number_with_unit(text) == expected


def test_a_bare_number_has_digits_alone():
    assert all(map(is_bare_number, ("7", "-7.5", "+0")))
    assert not any(map(is_bare_number, ("7 km", "seven", "1,000", ".5", "")))
