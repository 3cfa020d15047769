"""Loss gaps: exact for predictors whose truth is known, and what notebooks leave can be read."""

import numpy as np
import pandas as pd
import pytest

from calib_utils import metrics
from calib_utils.world import mechanism
from calib_utils.world.answers import AnswerWorld


@pytest.fixture(scope="module")
def truth():
    """Confidence of the exact predictor of a world: the true probability of the most probable answer."""
    return AnswerWorld().posterior(AnswerWorld().names("test", 2000)).max(axis=1)


@pytest.mark.parametrize("form", mechanism.FORMS)
def test_an_exactly_calibrated_predictor_has_no_loss_gap(truth, form):
    found = mechanism.loss_gap(truth, truth, form)
    assert abs(found.value) < 1e-9 and found.n == 2000
    drawn = (np.random.default_rng(0).random(2000) < truth).astype(float)
    noisy = mechanism.loss_gap(truth, drawn, form)
    assert noisy.low < 0 < noisy.high + 1e-3 and abs(noisy.value) < 0.01


@pytest.mark.parametrize("t", [-1.5, -0.5, 0.3, 1.0])
def test_a_tilted_predictor_has_the_gap_of_the_closed_form(truth, t):
    tilted = mechanism.tilt(truth, t)
    np.testing.assert_allclose(tilted, truth * np.exp(t) / (truth * np.exp(t) + 1 - truth))
    expected = mechanism.tilted_gap(truth, t)
    by_hand = truth * np.log(truth / tilted) + (1 - truth) * np.log((1 - truth) / (1 - tilted))
    assert expected == pytest.approx(by_hand.mean())
    assert mechanism.loss_gap(tilted, truth).value == pytest.approx(expected, rel=2e-3)
    assert mechanism.loss_gap(tilted, truth, "binned").value == pytest.approx(expected, rel=0.05)
    np.testing.assert_allclose(mechanism.best_tilt(tilted, truth), -t, atol=0.02)


@pytest.mark.parametrize("t", [-2.0, -0.7, 0.2, 0.9, 2.5])
def test_no_error_exceeds_its_bound(truth, t):
    tilted = mechanism.tilt(truth, t)
    error = metrics.smece(tilted, truth, np.ones((1, len(truth))))[0]
    assert 0 < error <= mechanism.error_bound(mechanism.tilted_gap(truth, t))


def test_a_tilt_that_fits_noise_costs_what_it_gains(truth):
    """Read on the half that it was fitted on, every tilt would gain."""
    gaps = []
    for seed in range(40):
        drawn = (np.random.default_rng(seed).random(200) < truth[:200]).astype(float)
        gaps.append(mechanism.loss_gap(truth[:200], drawn, seed=seed).value)
    assert -0.03 < np.mean(gaps) < 0


def test_questions_about_one_entity_stay_in_one_half(truth):
    drawn = (np.random.default_rng(1).random(300) < truth[:300]).astype(float)
    tilted, entities = mechanism.tilt(truth[:300], 1.5), np.repeat(np.arange(300), 3)
    once = mechanism.loss_gap(tilted, drawn)
    thrice = mechanism.loss_gap(np.repeat(tilted, 3), np.repeat(drawn, 3), entities=entities)
    assert thrice.value == pytest.approx(once.value, rel=0.05)
    assert thrice.high - thrice.low > 0.9 * (once.high - once.low)


@pytest.mark.parametrize(
    ("confidence", "correct", "options", "message"),
    [
        ([0.5] * 30, [1] * 30, {"form": "free"}, "form is 'free'; use one of"),
        ([0.5] * 30, [1] * 30, {"resolution": 0.0}, "resolution is 0.0"),
        ([0.5] * 10, [1] * 10, {}, "at least 20 questions, 10 in each half; got 10"),
        ([1.5] * 30, [1] * 30, {}, r"confidence\[0\] is 1.5"),
        ([0.5] * 30, [2] * 30, {}, r"correct must be \(30,\) values in \[0, 1\]"),
    ],
)
def test_bad_input_is_named(confidence, correct, options, message):
    with pytest.raises(ValueError, match=message):
        mechanism.loss_gap(confidence, correct, **options)
    with pytest.raises(ValueError, match="t be finite"):
        mechanism.tilt([0.5], np.nan)


def test_scores_that_notebooks_leave_are_read_by_condition(tmp_path, truth):
    assert mechanism.read_scores(tmp_path) == {}
    drawn = (np.random.default_rng(0).random(300) < truth[:300]).astype(int)
    ids = [f"q{i}" for i in range(300)]
    rows = [
        pd.DataFrame({"model": name, "style": "concise", "question_id": ids, "confidence": c, "correct": drawn})
        for name, c in (("base", truth[:300]), ("DPO", mechanism.tilt(truth[:300], 1.5)))
    ]
    pd.concat(rows).to_csv(tmp_path / "02_scores.csv", index=False)
    found = mechanism.read_scores(tmp_path)
    assert list(found) == ["02 base concise", "02 DPO concise"]
    measured = mechanism.measure(found, n_boot=50).set_index("condition")
    base, broken = measured.loc["02 base concise"], measured.loc["02 DPO concise"]
    assert broken["gap_low"] > 0 > base["gap_low"] and broken["signed"] > 0.05
    assert broken["error"] < broken["bound"] and broken["n"] == 300
    pd.DataFrame({"confidence": [0.5]}).to_csv(tmp_path / "03_scores.csv")
    with pytest.raises(ValueError, match="has no column 'question_id'"):
        mechanism.read_scores(tmp_path)
    with pytest.raises(ValueError, match="there are no tables of scores"):
        mechanism.measure({})
