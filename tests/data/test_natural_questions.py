import json

import pytest

from calib_utils.data import load_questions, natural_questions
from calib_utils.data.natural_questions import build
from calib_utils.errors import DataError
from calib_utils.semantics.collapse import Semantic, right_class
from calib_utils.types import SPLITS, Response

ROWS = [{"question": f"who wrote book {i}", "answer": [f"Author {i}", f"A. {i}"]} for i in range(60)]


@pytest.fixture(scope="module")
def questions():
    return {split: load_questions("natural_questions", split) for split in SPLITS}


def test_two_thousand_questions_are_embedded_each_once_and_most_of_them_are_for_measuring(questions):
    sizes = {split: len(found) for split, found in questions.items()}
    assert sum(sizes.values()) == 2000
    for split, share in build.SHARES.items():
        assert abs(sizes[split] / 2000 - share) < 0.03
    together = [question for found in questions.values() for question in found]
    assert len({q.id for q in together}) == len({q.text for q in together}) == 2000


def test_every_reference_and_every_alias_is_the_same_class(questions):
    for question in (q for found in questions.values() for q in found):
        target = right_class(question, Semantic())
        assert {Semantic()(Response(name), question) for name in question.aliases} <= {target}, question.id


def test_known_questions(questions):
    (found,) = [q for q in questions["test"] if q.text == "love yourself by justin bieber is about who"]
    assert (found.answer, found.statement) == ("Rihanna", "The answer is Rihanna.")


def test_the_script_takes_rows_by_a_hash_of_their_question_whatever_their_order():
    rows = build.build(ROWS, 20)
    assert len(rows) == 20 and [row["id"] for row in rows] == sorted(
        (r["id"] for r in rows), key=lambda x: int(x[3:])
    )
    other = build.build(ROWS[::-1], 20)
    assert {(row["question"], row["split"]) for row in rows} == {(row["question"], row["split"]) for row in other}
    row = rows[0]
    number = int(row["id"].removeprefix("nq/")) - 1
    assert (row["question"], row["answers"]) == (ROWS[number]["question"], ROWS[number]["answer"])


def test_a_row_with_an_answer_without_a_word_is_left_out():
    blank = {"question": "who wrote nothing", "answer": ["Nobody", ")"]}
    assert blank["question"] not in {row["question"] for row in build.build([blank, *ROWS], 60)}


def test_the_script_leaves_the_embedded_rows_as_it_made_them():
    stored = [json.loads(line) for line in natural_questions.FILE.read_text(encoding="utf-8").split("\n") if line]
    published = [{"question": row["question"], "answer": row["answers"]} for row in stored]
    again = build.build(published)
    keep = ("split", "question", "answers")
    assert [[row[name] for name in keep] for row in again] == [[row[name] for name in keep] for row in stored]


@pytest.mark.parametrize(
    ("rows", "message"),
    [(ROWS[:5], "there are 5 rows, 20 are needed"), ([*ROWS, ROWS[0]], "two rows have the same question")],
)
def test_another_file_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        build.build(rows, 20)
