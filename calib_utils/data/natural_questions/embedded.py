"""The embedded questions of Natural Questions: what people ask a search engine, with every accepted answer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from calib_utils.types import Question

NAME = "natural_questions"
FILE = Path(__file__).with_name("questions.jsonl")


@cache
def _rows() -> tuple[dict, ...]:
    return tuple(json.loads(line) for line in FILE.read_text(encoding="utf-8").split("\n") if line)


def questions(split: str) -> list[Question]:
    """The embedded questions of a split; the first answer is the reference, the others count as the same."""
    return [_question(row) for row in _rows() if row["split"] == split]


def _question(row: dict) -> Question:
    answer, *others = row["answers"]
    return Question(
        id=row["id"],
        text=row["question"],
        answer=answer,
        relation=NAME,
        split=row["split"],
        statement=f"The answer is {answer}.",
        aliases=tuple(dict.fromkeys(others)),
    )
