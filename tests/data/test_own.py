"""Rows of one's own."""

import json

import pytest

from calib_utils.data import own_questions
from calib_utils.errors import DataError


def rows(tmp_path, *given):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return own_questions(path)


def test_a_csv_and_a_jsonl_give_the_same_questions(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "question,answer,choices,group,note\n"
        'Capital of Peru?,"[""Lima"", ""Ciudad de los Reyes""]",,places,x\n'
        'Two and two?,4,"[""3"", ""4""]",sums,\n'
    )
    lines = (
        {"question": "Capital of Peru?", "answer": ["Lima", "Ciudad de los Reyes"], "group": "places"},
        {"question": "Two and two?", "answer": 1, "choices": [3, 4], "group": "sums"},
    )
    first, second = own_questions(path)
    assert [first, second] == rows(tmp_path, *lines)
    assert (first.answer, first.aliases, first.relation, first.split) == (
        "Lima",
        ("Ciudad de los Reyes",),
        "places",
        "test",
    )
    assert (second.answer, second.choices) == ("4", ("3", "4"))
    assert own_questions(path, "train")[0].split == "train"


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"question": "Q?", "answer": "a", "choice": ["a", "b"]},
            "row 2 has the field 'choice'; did you mean 'choices'",
        ),
        ({"Question": "Q?", "answer": "a"}, "did you mean 'question'"),
        ({"question": " ", "answer": "a"}, "row 2: question is ' '; give a text"),
        ({"question": "Q?"}, "row 2: answer holds None; give a text or a number"),
        ({"question": "Q?", "answer": []}, "row 2: answer is an empty list"),
        ({"question": "Q?", "answer": ["a", {}]}, "row 2: answer holds {}"),
        ({"question": "Q?", "answer": "a", "choices": "a, b"}, "row 2: choices is 'a, b'; give a list"),
        ({"question": "Q?", "answer": "c", "choices": ["a", "b"]}, "row 2: answer is 'c', which is neither among"),
        ({"question": "Q?", "answer": 2, "choices": ["a", "b"]}, "nor a position from 0 to 1"),
        ({"question": "Q?", "answer": "a", "choices": ["a", "a"]}, "repeats an option"),
    ],
)
def test_a_row_that_cannot_be_asked_is_an_error_that_names_it(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        rows(tmp_path, {"question": "Fine?", "answer": "yes"}, row)
