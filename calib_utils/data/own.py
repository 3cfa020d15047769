"""Own rows: questions from a reader's own file, with or without options."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from calib_utils.data.public import read_rows, unpacked
from calib_utils.errors import DataError
from calib_utils.storage import text_digest
from calib_utils.types import Question

FIELDS = ("question", "answer", "choices", "group")


def own_questions(path: str | Path, split: str = "test") -> list[Question]:
    """All rows of a JSONL, CSV or parquet file as questions of one split.

    A row has `question` and `answer`, and may have `choices` and `group`; other fields are ignored. The answer is a
    text, a number, or a list whose first entry is the reference and whose others are accepted too. Choices are a list
    of texts (in a CSV as JSON, such as `["Lima", "Quito"]`); the answer is then one of them, or its position counted
    from 0.

    Raises
    ------
    DataError : a file that cannot be read or is empty, a field that is nearly one of these, a row without question or
        answer, an answer that is not among the choices; the message names row and field.
    """
    return [_question(number, row, split) for number, row in enumerate(read_rows(Path(path)), start=1)]


def _question(number: int, row: dict, split: str) -> Question:
    for name in row:
        near = difflib.get_close_matches(str(name).lower(), FIELDS, n=1)
        if near and name != near[0] and near[0] not in row:  # ignored, it would change what is asked
            raise DataError(f"row {number} has the field {name!r}; did you mean {near[0]!r}?")
    fields = {name: unpacked(value) for name, value in row.items()}
    text = fields.get("question")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"row {number}: question is {text!r}; give a text")
    choices = fields.get("choices") or None
    if choices is not None:
        if not isinstance(choices, list) or len(choices) < 2:
            raise DataError(f'row {number}: choices is {choices!r}; give a list such as ["yes", "no"]')
        choices = [_text(choice, number, "choices") for choice in choices]
    answer = fields.get("answer")
    answers = [_text(one, number, "answer") for one in (answer if isinstance(answer, list) else [answer])]
    if not answers:
        raise DataError(f"row {number}: answer is an empty list; give at least one text")
    if choices is not None and answers[0] not in choices:
        if not re.fullmatch(r"\d+", answers[0]) or int(answers[0]) >= len(choices):
            raise DataError(
                f"row {number}: answer is {answers[0]!r}, which is neither among the choices {choices} nor a "
                f"position from 0 to {len(choices) - 1}"
            )
        answers = [choices[int(answers[0])]]
    return Question(
        id=f"own/{number}-{text_digest(text, 8)}",
        text=text.strip(),
        answer=answers[0],
        relation=str(fields.get("group") or "own"),
        split=split,
        statement=f"The answer is {answers[0]}.",
        aliases=tuple(dict.fromkeys(answers[1:])),
        choices=tuple(choices) if choices else None,
    )


def _text(value, number: int, field: str) -> str:
    """A text or a number as text, without blanks at its ends."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f"row {number}: {field} holds {value!r}; give a text or a number")
    return str(value).strip()
