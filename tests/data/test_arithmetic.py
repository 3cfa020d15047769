import re
from collections import Counter

import pytest

from calib_utils import data
from calib_utils.data import arithmetic
from calib_utils.data.arithmetic import problems
from calib_utils.errors import DataError
from calib_utils.types import SPLITS


@pytest.mark.parametrize("k", range(1, 7))
@pytest.mark.parametrize("split", SPLITS)
def test_chains_compute_the_answer_within_bounds(k, split):
    for question in problems(k, 100, split, largest=60):
        value = int(re.match(r"\w+ has (\d+) ", question.text)[1])
        assert len(question.chain) == k
        for step in question.chain:
            left, sign, right, result = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)\.", step).groups()
            assert int(left) == value, "a step starts from the result of the one before"
            value = {"+": value + int(right), "-": value - int(right), "*": value * int(right)}[sign]
            assert value == int(result) and 1 <= value <= 60
        assert question.answer == str(value)
        assert question.split == split


def test_the_story_holds_the_numbers_of_the_chain_in_order():
    words = {"doubles": "2", "triples": "3", "quadruples": "4"}
    for question in problems(4, 50):
        told = [words.get(word, word) for word in re.findall(r"\d+|doubles|triples|quadruples", question.text)]
        numbers = [re.findall(r"\d+", step) for step in question.chain]
        assert told == [numbers[0][0], *(right for _, right, _ in numbers)]


def test_problems_are_distinct_and_no_answer_wins_by_frequency():
    for split in SPLITS:
        for k in range(1, 7):
            asked = [q for q in data.load_questions("arithmetic", split) if len(q.chain) == k]
            assert len({question.text for question in asked}) >= 0.97 * len(asked)
            (_, most), *_ = Counter(question.answer for question in asked).most_common(1)
            assert most <= 0.05 * len(asked), (split, k)


def test_no_computation_of_the_test_split_is_trained_on():
    for k in (1, 2, 3):
        train, test = ({question.chain for question in problems(k, 300, split)} for split in ("train", "test"))
        assert not train & test


def test_problems_depend_on_seed_and_number_only():
    assert problems(2, 5) == problems(2, 9)[:5]
    assert problems(2, 5) != problems(2, 5, seed=1)
    assert len({question.id for question in data.load_questions("arithmetic", "dev")}) == 6 * 300


def test_knobs_are_independent():
    plain, aside = problems(2, 40), problems(2, 40, irrelevant=2)
    assert {len(q.text.split(". ")) for q in plain} == {4}  # a start, two steps, the question
    assert {len(q.text.split(". ")) for q in aside} == {6}
    assert {len(q.chain) for q in aside} == {2}
    only = problems(3, 40, operations=("subtract",), operands=(2, 9))
    operands = [re.fullmatch(r"\d+-(\d+)=\d+\.", step)[1] for q in only for step in q.chain]
    assert {int(number) for number in operands} <= set(range(2, 10))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"operations": ("divide",)}, "divide"),
        ({"operations": ()}, "operations are"),
        ({"k": 0}, "k = 0"),
        ({"operands": (5, 200)}, "operands"),
        ({"split": "validation"}, "validation"),
        ({"k": 40, "operations": ("multiply",)}, "no problem of 40 steps"),
    ],
)
def test_bad_knobs_are_named(change, message):
    with pytest.raises(DataError, match=message):
        arithmetic.problems(**{"k": 2, "n": 1, **change})
