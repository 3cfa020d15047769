"""Metrics by a notebook's resamples and seed: the same numbers as the functions that compute them."""

import numpy as np
import pandas as pd
import pytest

from calib_utils import metrics
from calib_utils.studies import LineageStudy

RUN = LineageStudy(n_boot=50, seed=3)


def scores(seed, n=80):
    rng = np.random.default_rng(seed)
    f = rng.random(n)
    correct = (rng.random(n) < f).astype(float)
    return pd.DataFrame({"question_id": range(n), "confidence": f, "correct": correct})


A, B = scores(1), scores(2)


def test_one_table_is_a_list_of_one():
    assert RUN.estimate(A) == RUN.estimate([A]) == metrics.evaluate_seeds([A], "smece", (), 50, 3)
    moved = RUN.estimate([A, B], "overconfidence", minus=A)
    assert moved == metrics.evaluate_seeds([A, B], "overconfidence", [A], 50, 3)
    sharp = A.assign(confidence=1.0)
    assert RUN.reduction(sharp, [A]) == metrics.relative_reduction([sharp], [A], "ece_equal_width_10", 50, 3)


def test_tables_are_compared_by_one_name_or_by_several():
    by_name = RUN.compare({"a": A, "b": [A, B]}, "model", ["accuracy"])
    assert by_name.equals(metrics.compare({"a": A, "b": [A, B]}, ["model"], ["accuracy"], 50, 3))
    assert list(RUN.compare({("a", 1): A}, ["model", "seed"], ["accuracy"]).columns[:3]) == [
        "model",
        "seed",
        "metric",
    ]


def test_reliability_is_a_curve_and_an_error_for_every_table():
    curves, errors = RUN.reliability({"a": A, "b": B}, "kind")
    assert curves.columns[0] == "kind" and list(errors) == ["a", "b"]
    own = curves[curves["kind"] == "b"].drop(columns="kind").reset_index(drop=True)
    assert own.equals(metrics.reliability_curve(B["confidence"], B["correct"], 50, 3))
    assert errors["b"] == RUN.estimate(B)


def test_histograms_stand_below_each_other():
    table = RUN.histograms({"a": A, "b": B}, n_bins=4)
    assert list(table["model"]) == ["a"] * 4 + ["b"] * 4
    assert table[table["model"] == "a"]["right"].sum() == pytest.approx(1)


def test_means_are_over_questions_or_over_seeds():
    table = A.assign(kind="x")
    assert RUN.mean_by(table, ["kind"], "correct")["value"].iloc[0] == pytest.approx(A["correct"].mean())
    value = RUN.mean_over_seeds([A, B], "correct").value
    assert value == pytest.approx((A["correct"].mean() + B["correct"].mean()) / 2)


def test_the_classwise_error_is_that_of_ten_bins():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    labels = [int(row.argmax()) for row in p]
    assert RUN.classwise(list(p), labels) == metrics.evaluate_classwise(p, np.array(labels), 10, 50, 3)
