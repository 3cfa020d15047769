"""Loss gaps: exact for predictors whose truth is known, and what notebooks leave can be read."""

import numpy as np
import pandas as pd
import pytest

from calib_utils import metrics, plots, semantics
from calib_utils.data import known_names, load_questions
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.types import Completion, Record
from calib_utils.world import mechanism, pictures


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


@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("form", mechanism.FORMS)
def test_a_model_that_is_always_sure_has_the_gap_of_its_mistakes(confidence, form):
    """Near 1 the loss hardly bends: the fit has to find its minimum all the same."""
    right, sure = np.tile([1.0, 0.0], 200), min(confidence, 0.995)
    found = mechanism.loss_gap(np.full(400, confidence), right, form, resolution=0.005)
    expected = 0.5 * np.log(0.5 / sure) + 0.5 * np.log(0.5 / (1 - sure))
    assert found.value == pytest.approx(expected, rel=0.03)
    assert mechanism.error_bound(found.value) >= confidence - 0.5


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


def test_scores_of_a_small_run_of_the_notebooks_make_a_picture(tmp_path):
    """Written as notebooks 01 to 03 do; a condition of fewer questions than a gap needs is an error that says so."""
    questions, rng = load_questions("facts", "test", 60), np.random.default_rng(0)

    def asked(n, share):
        found = []
        for question in questions[:n]:
            right = rng.binomial(10, share)
            said = {question.answer: right, "something else": 10 - right}
            drawn = tuple(Completion(text, (i,), c, -1.0, True) for i, (text, c) in enumerate(said.items()) if c)
            found.append(Record(question, drawn, (), {}, question.id))
        return semantics.score(found, semantics.Semantic(known_names("facts")))

    scores = {
        "base": [asked(60, 0.5)],
        "DPO": [asked(60, 0.3), asked(60, 0.3)],
        "base, no examples": [asked(17, 0.5)],
    }
    stacked = metrics.stack({name: pd.concat(tables) for name, tables in scores.items()}, "model")
    columns = ["model", "question_id", "entity", "confidence", "correct"]
    plots.save_numbers(stacked[columns], tmp_path / "02_scores.csv")
    found = mechanism.read_scores(tmp_path)
    assert {name: len(table) for name, table in found.items()} == {
        "02 base": 60,
        "02 DPO": 120,
        "02 base, no examples": 17,
    }
    with pytest.raises(ValueError, match="at least 20 questions, 10 in each half; got 17"):
        mechanism.measure(found, n_boot=20)
    large = {name: table for name, table in found.items() if len(table) >= mechanism.LEAST}
    table = mechanism.measure(large, n_boot=20).set_index("condition")
    assert table.loc["02 DPO", "signed"] > 0.2 and set(table["notebook"]) == {"02"}
    figure = pictures.gap_against_error(table.reset_index(), "notebook", "conditions", "condition")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2"]
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == [f"{i}  {name}" for i, name in enumerate(large, 1)]
