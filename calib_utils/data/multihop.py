"""Multi-hop: questions composed from the embedded facts, with the chain of hops as the worked reasoning.

Two hops: "What is the currency of the country whose capital is Lima?" A bridge fact leads from the subject to an
entity, a second fact about that entity gives the answer. Three hops: from a chemical symbol to the element, to its
atomic number, to its neighbour in the periodic table. All facts of a question lie in its own split.
"""

from __future__ import annotations

from functools import cache

from calib_utils.data.facts.embedded import fact_rows, fact_templates
from calib_utils.text import capitalised
from calib_utils.types import Question

# How the answer of a relation is described by its subject, and the relation that would lead straight back.
_BRIDGES = {
    "country_of_capital": ("the country whose capital is {subject}", "capital"),
    "country_of_city": ("the country where the city of {subject} lies", None),
    "country_of_currency": ("the country whose currency is the {subject}", "currency"),
    "element_of_symbol": ("the element with the symbol {subject}", "element_symbol"),
    "element_of_number": ("the element with the atomic number {subject}", "element_number"),
    "state_of_city": ("the US state where the city of {subject} lies", None),
    "state_of_county": ("the US state where {subject} lies", None),
}
_TARGETS = {
    "country": ("capital", "continent", "currency", "language", "internet_domain", "calling_code"),
    "element": ("element_symbol", "element_number"),
    "state": ("state_abbreviation",),
}
_NEIGHBOURS = {"after": 1, "before": -1}


def questions(split: str) -> list[Question]:
    """All questions of a split; their relation is "2 hops, " or "3 hops, " and what is asked for."""
    return [question for question in _all() if question.split == split]


@cache
def _all() -> tuple[Question, ...]:
    return (*_two_hops(), *_three_hops())


def _two_hops():
    about: dict[tuple[str, str], dict] = {}  # (relation, subject) -> fact
    for row in fact_rows():
        about[row["relation"], row["subject"].removeprefix("the ")] = row
    for bridge in fact_rows():
        description, back = _BRIDGES.get(bridge["relation"], ("", None))
        for target in _TARGETS[bridge["relation"].partition("_")[0]] if description else ():
            fact = about.get((target, bridge["answer"]))
            if fact is not None and target != back and fact["split"] == bridge["split"]:
                text = fact_templates()[target]["questions"][0]
                text = text.format(subject=description.format(subject=bridge["subject"]))
                yield _composed(f"{target}/{bridge['id']}", text, target, [bridge, fact])


def _three_hops():
    numbers = {row["entity"]: row for row in fact_rows() if row["relation"] == "element_number"}
    elements = {row["subject"]: row for row in fact_rows() if row["relation"] == "element_of_number"}
    for symbol in fact_rows():
        if symbol["relation"] != "element_of_symbol":
            continue
        number = numbers[symbol["entity"]]
        for side, step in _NEIGHBOURS.items():
            fact = elements.get(str(int(number["answer"]) + step))
            if fact is not None and fact["split"] == symbol["split"] == number["split"]:
                text = f"Which element comes right {side} the element with the symbol {symbol['subject']} "
                text += "in the periodic table?"
                yield _composed(f"{side}/{symbol['id']}", text, "element_of_number", [symbol, number, fact])


def _composed(name: str, text: str, target: str, hops: list[dict]) -> Question:
    last = hops[-1]
    chain = (fact_templates()[row["relation"]]["statement"].format(**row) for row in hops)
    return Question(
        id=f"multihop/{name}",
        text=capitalised(text),
        answer=last["answer"],
        relation=f"{len(hops)} hops, {target}",
        split=last["split"],
        statement=f"The answer is {last['answer']}.",
        aliases=tuple(last["aliases"]),
        chain=tuple(map(capitalised, chain)),
    )
