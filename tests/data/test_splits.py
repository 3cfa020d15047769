"""Splits by a hash keep their shares; even draws take relations by turns and repeat with their seed."""

from collections import Counter

import pytest

from calib_utils.data import sample_evenly, split_of, take_turns
from calib_utils.errors import DataError
from calib_utils.types import Question

MANY = [Question(f"{r}{i}", "?", "a", r, "test", "") for r, n in (("x", 30), ("y", 30), ("z", 2)) for i in range(n)]


def test_relations_are_drawn_as_evenly_as_they_allow():
    drawn = sample_evenly(MANY, 20, seed=0)
    assert Counter(q.relation for q in drawn) == {"x": 9, "y": 9, "z": 2} and len({q.id for q in drawn}) == 20
    assert sample_evenly(MANY, 20, seed=0) == drawn != sample_evenly(MANY, 20, seed=1)
    assert sample_evenly(MANY, 10, seed=0) == drawn[:10]  # more questions keep the first ones


@pytest.mark.parametrize("n", [0, 63])
def test_more_questions_than_there_are_is_an_error(n):
    with pytest.raises(DataError, match=rf"{n} questions were asked for; there are 62 \(use 1 to 62\)"):
        sample_evenly(MANY, n, 0)
    with pytest.raises(DataError, match="none is left to draw from"):
        sample_evenly([], 5, 0)


def test_lists_take_turns_until_all_are_empty():
    assert take_turns([[1, 2, 3], [], [4]]) == [1, 4, 2, 3] and take_turns([]) == []


def test_a_hash_sends_texts_to_splits_by_their_shares():
    shares = {"train": 0.5, "dev": 0.2, "test": 0.3}
    found = Counter(split_of(f"question {i}", shares) for i in range(4000))
    assert all(abs(found[name] / 4000 - share) < 0.03 for name, share in shares.items())
    assert split_of("one", shares) == split_of("one", shares) and split_of("one", {"only": 1.0}) == "only"
