from collections import Counter

import pytest

from calib_utils import data, text
from calib_utils.types import SPLITS


@pytest.fixture(scope="module")
def composed():
    return {split: data.load_questions("multihop", split) for split in SPLITS}


def test_every_hop_is_a_fact_of_the_same_split(composed):
    facts = [fact for split in SPLITS for fact in data.load_questions("facts", split)]
    stated = {(text.capitalised(fact.statement), fact.split) for fact in facts}
    for split, questions in composed.items():
        for question in questions:
            assert {(hop, split) for hop in question.chain} <= stated
            assert question.relation.startswith(f"{len(question.chain)} hops")


def test_a_composed_question_is_about_the_entity_of_its_first_fact(composed):
    about = {fact.id: data.entity(fact) for split in SPLITS for fact in data.load_questions("facts", split)}
    for question in composed["dev"]:
        assert data.entity(question) == about[question.id.split("/", 2)[2]]


def test_the_last_hop_says_the_answer_and_the_question_does_not(composed):
    for question in composed["test"]:
        assert question.answer in question.chain[-1]
        assert question.answer not in question.text.split(), question.text


@pytest.mark.parametrize(
    "text, answer",
    [
        ("What is the currency of the country whose capital is Lima?", "Peruvian sol"),
        ("What is the atomic number of the element with the symbol Kr?", "36"),
        ("Which element comes right after the element with the symbol Cn in the periodic table?", "nihonium"),
    ],
)
def test_known_questions(composed, text, answer):
    (question,) = [q for questions in composed.values() for q in questions if q.text == text]
    assert question.answer == answer


def test_sizes_and_ids(composed):
    counts = Counter(len(q.chain) for q in composed["test"])
    assert counts[2] > 1000 and counts[3] >= 20
    ids = [q.id for questions in composed.values() for q in questions]
    assert len(ids) == len(set(ids))
