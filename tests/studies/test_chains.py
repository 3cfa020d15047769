import math

import numpy as np
import pytest

from calib_utils import metrics
from calib_utils.data import load_questions
from calib_utils.semantics import Chain, number
from calib_utils.studies import chains
from calib_utils.types import Completion, Prompt, Question, Record

B = Chain(number)
PROMPT = Prompt("", "Question: Q?\nAnswer:")


def record(*chains_and_counts, id="q", answer="17"):
    question = Question(id, "Q?", answer, "3 steps", "test", f"The answer is {answer}.")
    drawn = tuple(
        Completion(text, (i,), count, math.log(0.1), True) for i, (text, count) in enumerate(chains_and_counts)
    )
    return Record(question, drawn, (1,), {}, id)


GOOD = "4 + 5 = 9. 9 + 6 = 15. 15 + 2 = 17. The answer is 17."


def test_composed_questions_are_of_known_relations_and_no_question_has_too_many_steps():
    composed, sums = load_questions("multihop", "dev"), load_questions("arithmetic", "dev")
    found = chains.reachable([*composed, *sums], 2, ["country_of_capital", "continent"])
    assert {len(question.chain) for question in found} == {1, 2}
    relations = {tuple(q.id.split("/")[1:3]) for q in found if q.id.startswith("multihop/")}
    assert relations == {("continent", "country_of_capital")}
    assert {question.id for question in sums if len(question.chain) <= 2} < {question.id for question in found}
    assert chains.reachable(composed, 3) == composed


def test_steps_are_the_sentences_before_the_answer():
    assert chains.steps(GOOD) == ["4 + 5 = 9.", "9 + 6 = 15.", "15 + 2 = 17."]
    assert chains.steps("The answer is 3.") == []
    assert chains.steps("It costs 3.5 euros. So") == ["It costs 3.5 euros.", "So"]


def test_cuts_keep_the_first_share_of_the_steps():
    cuts = chains.cut([record((" " + GOOD, 3))], [PROMPT], B, (0, 0.25, 0.5, 0.75, 1))
    begun = [one.prompt.own.removeprefix(PROMPT.own) for one in cuts]
    whole = " 4 + 5 = 9. 9 + 6 = 15. 15 + 2 = 17."
    assert begun == ["", " 4 + 5 = 9.", " 4 + 5 = 9. 9 + 6 = 15.", " 4 + 5 = 9. 9 + 6 = 15.", whole]
    assert [(one.source, one.final, one.right) for one in cuts] == [("q", "17", True)] * 5
    assert len({one.question.id for one in cuts}) == 5


def test_chains_without_an_answer_or_a_step_are_not_cut():
    mixed = record((GOOD, 1), ("1 + 1 = 2. 2 + 2", 30), ("The answer is 5.", 30))
    assert {one.final for one in chains.cut([mixed], [PROMPT], B, per_question=3)} == {"17"}
    with pytest.raises(ValueError, match="none of 1 questions"):
        chains.cut([record(("1 + 1", 4))], [PROMPT], B)
    with pytest.raises(ValueError, match="fractions"):
        chains.cut([mixed], [PROMPT], B, (0.5, 1.5))


def test_chains_are_taken_as_often_as_they_are_drawn():
    wrong = "4 + 5 = 8. The answer is 8."
    many = [record((GOOD, 9), (wrong, 1), id=f"q{i}") for i in range(400)]
    cuts = chains.cut(many, [PROMPT] * len(many), B, (1.0,), per_question=1)
    assert np.mean([one.right for one in cuts]) == pytest.approx(0.9, abs=0.05)


def test_intermediate_confidence_is_the_share_of_the_final_class():
    cuts = chains.cut([record((GOOD, 1))], [PROMPT], B, (0.0, 1.0))
    drawn = [
        record((GOOD, 1), ("4 + 5 = 8. The answer is 8.", 3)),
        record(("The answer is 17.", 3), (" so the answer is: 17", 1)),
    ]
    table = chains.intermediate_confidence(cuts, drawn, B)
    assert table["confidence"].tolist() == [0.25, 1.0]
    assert table["right"].all()
    mean = metrics.mean_by(table, ["right", "fraction"], "confidence")
    assert mean["value"].tolist() == [0.25, 1.0] and mean["n"].tolist() == [1, 1]
