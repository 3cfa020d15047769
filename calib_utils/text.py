"""Text: the form in which two spellings of one answer agree; numbers and units in it."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def capitalised(text: str) -> str:
    """The text with its first letter in upper case, the others as they are."""
    return text[0].upper() + text[1:]


def fold(text: str) -> str:
    """Lower case without accents and blanks at the ends: two spellings of one name are the same."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).strip()


NO_ANSWER = "<no answer>"
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_SCALE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_UNITS = {
    unit: names.split()[0]
    for names in (
        "km kilometer kilometers kilometre kilometres",
        "m meter meters metre metres",
        "cm centimeter centimeters centimetre centimetres",
        "mile miles",
        "foot feet ft",
        "kg kilogram kilograms",
        "gram grams",
        "second seconds",
        "minute minutes",
        "hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "% percent",
        "dollar dollars $",
        "euro euros €",
        "pound pounds £",
        "proton protons",
        "people persons",
    )
    for unit in names.split()
}
_NUMBER = re.compile(r"^([$€£])?\s*([+-]?\d+(?:\.\d+)?)\s*(hundred|thousand|million|billion)?\s*(%|[^\W\d]+)?$")


@lru_cache(maxsize=2**16)
def canonical_text(text: str) -> str:
    """The form in which two spellings of one answer agree.

    Lower case, no accents, articles, punctuation or bracketed remarks; "1,000" and "one thousand" are "1000",
    "1000 kilometres" is "1000 km". Nothing left, or the start of a new question, is `NO_ANSWER`.
    """
    text = fold(text)
    if text.startswith(("question:", "q:")):
        return NO_ANSWER
    text = re.sub(r"\([^)]*\)?", " ", text).strip() or text.strip("() ")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text).replace("&", " and ")
    number = number_with_unit(text.strip().rstrip(".!;,"))
    if number is not None:
        return number
    text = re.sub(r"['’ʻ`´]", "", text)
    text = re.sub(r"\b(\w)\.(?=\w\b)", r"\1", text)  # d.c. -> dc., u.s.a. -> usa.
    text = re.sub(r"[\W_]+", " ", text)
    text = re.sub(r"^(?:(?:a|an|the)\s+)+(?=\S)", "", text.strip())
    return text.strip() or NO_ANSWER


def number_with_unit(text: str) -> str | None:
    """A number in digits, with its unit if it has one that is known; None for anything else."""
    words = text.split()
    if words and words[0] in _NUMBER_WORDS:
        text = " ".join([_NUMBER_WORDS[words[0]], *words[1:]])
    match = _NUMBER.match(text)
    if match is None:
        return None
    unit = match[1] or match[4]
    if unit is not None and unit not in _UNITS:
        return None
    number = f"{float(match[2]) * _SCALE.get(match[3], 1):.12g}"
    return number if unit is None else f"{number} {_UNITS[unit]}"


def is_bare_number(text: str) -> bool:
    """Whether a text is a number in digits and nothing else."""
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", text) is not None
