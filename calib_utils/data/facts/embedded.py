"""The embedded facts as questions, in one of three phrasings each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import cycle

from calib_utils.errors import DataError
from calib_utils.text import capitalised
from calib_utils.types import Question

PHRASINGS = 3  # ways to ask for an embedded fact, of every relation


@cache
def fact_rows() -> tuple[dict, ...]:
    """The embedded facts as they are stored: id, relation, entity, split, subject, answer, aliases, ..."""
    lines = (files("calib_utils.data.facts") / "facts.jsonl").read_text(encoding="utf-8").split("\n")
    return tuple(json.loads(line) for line in lines if line)


@cache
def fact_templates() -> dict[str, dict]:
    """Per relation of the facts the ways to ask for it (`questions`) and to state it (`statement`)."""
    return json.loads((files("calib_utils.data.facts") / "relations.json").read_text(encoding="utf-8"))


def questions(split: str) -> list[Question]:
    """The embedded facts of a split as questions."""
    return [question for question in _all() if question.split == split]


@cache
def _all() -> tuple[Question, ...]:
    return tuple(_fact(row, fact_templates()) for row in fact_rows())


def _fact(row: dict, templates: dict) -> Question:
    template = templates[row["relation"]]
    text = template["questions"][row["phrasing"]].format(subject=row["subject"])
    statement = template["statement"].format(subject=row["subject"], answer=row["answer"])
    return Question(
        id=row["id"],
        text=capitalised(text),
        answer=row["answer"],
        relation=row["relation"],
        split=row["split"],
        statement=capitalised(statement),
        aliases=tuple(row["aliases"]),
        choices=tuple(row["choices"]),
        popularity=row["fame"],
    )


def rephrased(questions: Sequence[Question], *phrasings: int) -> list[Question]:
    """Questions about embedded facts, in these of their `PHRASINGS` (0, 1, 2) by turns; DataError for others."""
    subjects = {row["id"]: row["subject"] for row in fact_rows()}
    strangers = [question.id for question in questions if question.id not in subjects]
    if strangers:
        raise DataError(f"question {strangers[0]!r} is not an embedded fact: it has one phrasing only")
    found = []
    for question, k in zip(questions, cycle(phrasings), strict=False):
        text = fact_templates()[question.relation]["questions"][k].format(subject=subjects[question.id])
        found.append(replace(question, text=capitalised(text)))
    return found


@cache
def _entities() -> dict[str, str]:
    return {row["id"]: row["entity"] for row in fact_rows()}


def entity(question: Question) -> str:
    """What a question is about: several embedded facts share an entity; any other question stands for itself.

    A question composed from facts (`multihop`) is about the entity of its first fact, with whose id its own ends.
    """
    first_fact = question.id.split("/", 2)[-1]
    return _entities().get(question.id) or _entities().get(first_fact, question.id)
