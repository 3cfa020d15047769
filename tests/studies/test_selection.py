import math

import numpy as np
import pytest

from calib_utils.semantics import exact
from calib_utils.studies.selection import STRATEGIES, select
from calib_utils.types import Completion, Question, Record


def record(*rows, id="q"):
    """Rows of text, count, log-probability, token confidence; the right answer is "yes"."""
    drawn = tuple(Completion(text, (i, 1), n, logprob, True, top) for i, (text, n, logprob, top) in enumerate(rows))
    return Record(Question(id, "Q?", "yes", "r", "test", "Yes."), drawn, (1,), {}, id)


def found(table, strategy, k):
    (value,) = table[(table["strategy"] == strategy) & (table["k"] == k)]["correct"]
    return value


def test_one_candidate_is_a_random_draw_for_every_strategy():
    table = select([record(("yes", 3, -1.0, 0.9), ("no", 7, -0.5, 0.3))], exact, [1], repeats=4000)
    for strategy in STRATEGIES:
        assert found(table, strategy, 1) == pytest.approx(0.3, abs=0.03)


def test_strategies_by_hand():
    one = record(("yes", 1, -3.0, 0.9), ("no", 3, -1.0, 0.5), ("maybe", 2, -2.0, 0.6))
    table = select([one], exact, [6])
    assert found(table, "token confidence", 6) == 1  # 0.9 is the highest
    assert found(table, "probability", 6) == 0  # "no" is the most probable
    assert found(table, "majority", 6) == 0
    assert found(table, "oracle", 6) == 1


def test_the_oracle_is_the_hypergeometric_chance_of_a_right_candidate():
    one = record(("yes", 2, -1.0, 0.5), ("no", 8, -1.0, 0.5))
    for k in (1, 3, 5):
        chance = 1 - math.comb(8, k) / math.comb(10, k)
        assert found(select([one], exact, [k], ["oracle"], repeats=4000), "oracle", k) == pytest.approx(
            chance, abs=0.03
        )


def test_no_answer_does_not_win_a_vote():
    one = record(("", 4, -1.0, 0.5), ("yes", 1, -1.0, 0.5))
    assert found(select([one], exact, [5], ["majority"]), "majority", 5) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ks": [3], "strategies": ["beam"]}, "'beam' is unknown"),
        ({"ks": [0, 2]}, r"1\.\.4"),
        ({"ks": [5]}, r"1\.\.4"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        select([record(("yes", 4, -1.0, 0.5))], exact, **options)


def test_records_without_confidence_are_refused():
    with pytest.raises(ValueError, match="no token confidences"):
        select([record(("yes", 4, -1.0, np.nan))], exact, [2])


@pytest.mark.parametrize(
    "records, ks, strategies, message",
    [
        ([], [1], ["oracle"], "0 records, ks = [1], strategies = ['oracle']"),
        ([record(("yes", 3, -1.0, 0.9))], [], ["oracle"], "1 records, ks = [], strategies = ['oracle']"),
        ([record(("yes", 3, -1.0, 0.9))], [1], [], "1 records, ks = [1], strategies = []"),
    ],
)
def test_nothing_to_select_is_an_error_that_says_what_is_missing(records, ks, strategies, message):
    with pytest.raises(ValueError) as caught:
        select(records, exact, ks, strategies)
    assert str(caught.value) == f"there is nothing to select: {message}; give at least one of each"
