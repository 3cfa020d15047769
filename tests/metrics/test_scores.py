from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import relplot
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error

from calib_utils import metrics as M
from calib_utils.metrics import scores

RNG = np.random.default_rng(0)


def one(metric, confidence, correct, **options):
    confidence, correct = scores.checked(confidence, correct)
    return metric(confidence, correct, np.ones((1, len(correct))), **options)[0]


def data(n=300, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    f = np.round(rng.random(n) * 50) / 50
    return f, (rng.random(n) < np.clip(f + shift, 0, 1)).astype(float)


@pytest.mark.parametrize("n, shift, seed", [(20, 0, 1), (300, 0, 2), (300, 0.25, 3), (1000, -0.1, 4), (40, 0.9, 5)])
def test_smece_is_relplots_number(n, shift, seed):
    f, y = data(n, shift, seed)
    assert one(M.smece, f, y) == pytest.approx(relplot.smECE(f, y), abs=1e-9)


def test_smece_of_resamples_is_relplots_number_of_repeated_rows():
    f, y = data(200, 0.1)
    weights = M.resample_counts(200, 6, seed=1)
    for row, value in zip(weights.astype(int), M.smece(f, y, weights), strict=True):
        assert value == pytest.approx(relplot.smECE(np.repeat(f, row), np.repeat(y, row)), abs=1e-9)


def test_smece_of_tiny_errors_needs_the_fine_grid():
    f = np.linspace(0, 1, 2000)
    y = (np.random.default_rng(1).permutation(2000) / 2000 < f).astype(float)
    f = np.where(y == 1, 1.0, 0.0) * 0.999 + 0.0005
    assert one(M.smece, f, y) == pytest.approx(relplot.smECE(f, y), abs=1e-9)


def test_smece_of_resamples_near_0_is_relplots_number_too():
    rng = np.random.default_rng(0)
    f = rng.beta(1, 20, 100) * 0.1
    y = (rng.random(100) < f).astype(float)
    weights = M.resample_counts(100, 70, seed=1)  # more than are smoothed together
    found = M.smece(f, y, weights)
    assert np.median(found) < 0.01
    for at in (0, 64, 69):
        row = weights[at].astype(int)
        assert found[at] == pytest.approx(relplot.smECE(np.repeat(f, row), np.repeat(y, row)), abs=1e-9)


def test_ece_by_hand():
    f, y = [0.05, 0.1, 0.95, 0.91, 0.92], [0, 1, 1, 1, 0]
    # bins (0, 0.1] and (0.9, 1]: |0.075 - 0.5| * 2/5 + |0.92667 - 0.66667| * 3/5
    assert one(M.ece_equal_width, f, y) == pytest.approx(0.425 * 0.4 + 0.26 * 0.6)
    assert one(scores.mce_equal_width, f, y) == pytest.approx(0.425)
    assert one(scores.ece_equal_mass, f, y, n_bins=1) == pytest.approx(abs(np.mean(f) - 0.6))


def test_ece_agrees_with_torchmetrics():
    f, y = RNG.random(500), RNG.integers(0, 2, 500)
    theirs = {
        norm: float(binary_calibration_error(torch.tensor(f), torch.tensor(y), n_bins=10, norm=norm))
        for norm in ("l1", "max")
    }
    assert one(M.ece_equal_width, f, y) == pytest.approx(theirs["l1"], abs=1e-6)
    assert one(scores.mce_equal_width, f, y) == pytest.approx(theirs["max"], abs=1e-6)


def test_equal_mass_bins_hold_equal_numbers():
    bins = M.equal_mass_bins(RNG.random(1000), 10)
    assert np.bincount(bins).tolist() == [100] * 10


def test_scores_agree_with_scikit_learn():
    f, y = data(400)
    assert one(scores.brier, f, y) == pytest.approx(sk.brier_score_loss(y, f))
    assert one(scores.auroc, f, y) == pytest.approx(sk.roc_auc_score(y, f))
    inner = np.clip(f, 0.01, 0.99)
    assert one(scores.log_loss, inner, y) == pytest.approx(sk.log_loss(y, inner))
    weights = M.resample_counts(400, 3, seed=0)
    for row, value in zip(weights, scores.auroc(f, y, weights), strict=True):
        assert value == pytest.approx(sk.roc_auc_score(y, f, sample_weight=row))


def test_log_loss_is_finite_at_certainty_and_states_its_floor():
    assert one(scores.log_loss, [1.0, 0.0], [0, 1]) == pytest.approx(-np.log(1e-6))


def test_brier_parts_by_hand_and_add_up():
    f, y = data(300, 0.2)
    weights = M.resample_counts(300, 4, seed=0)
    parts = [
        M.METRICS[f"brier_{name}"](f, y, weights)
        for name in ("reliability_10", "resolution_10", "uncertainty", "within_bins_10")
    ]
    assert parts[0] - parts[1] + parts[2] + parts[3] == pytest.approx(scores.brier(f, y, weights))
    # two bins, (0, 0.5] with accuracy 0 and (0.5, 1] with accuracy 1
    f, y = [0.2, 0.4, 0.9], [0, 0, 1]
    assert one(scores.brier_reliability, f, y, n_bins=2) == pytest.approx(2 / 3 * 0.09 + 1 / 3 * 0.01)
    assert one(scores.brier_resolution, f, y, n_bins=2) == pytest.approx(2 / 3 * (1 / 3) ** 2 + 1 / 3 * (2 / 3) ** 2)


def test_classwise_ece_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    # class 0: bins hold 0.9 (hit), 0.8 (miss), 0.3 (miss); class 1 mirrors it
    expected = (0.1 + 0.8 + 0.3) / 3
    estimate = M.evaluate_classwise(p, [0, 1, 1], n_boot=50)
    assert estimate.plug_in == pytest.approx(expected) and estimate.low <= estimate.value < expected < estimate.high
    with pytest.raises(ValueError, match=r"row 1 sum to 0\.9"):
        M.classwise_ece([[0.5, 0.5], [0.5, 0.4]], [0, 1])
    with pytest.raises(ValueError, match="labels"):
        M.classwise_ece([[0.5, 0.5]], [2])


def test_risk_coverage_by_hand():
    curve = M.risk_coverage([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])
    assert curve["coverage"].tolist() == [0.25, 0.75, 1.0]
    assert curve["risk"].tolist() == pytest.approx([0, 1 / 3, 0.5])
    assert one(scores.aurc, [0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0]) == pytest.approx((0 + 2 / 3 + 0.5) / 4)


@pytest.mark.parametrize("bad, message", [(1.2, r"confidence\[1\] is 1.2"), (float("nan"), "nan"), (-0.1, "-0.1")])
def test_confidence_out_of_range_is_an_error(bad, message):
    with pytest.raises(ValueError, match=message):
        M.evaluate([0.5, bad], [0, 1])


def test_other_bad_input_is_an_error():
    with pytest.raises(ValueError, match="correct"):
        M.evaluate([0.5], [0.5])
    with pytest.raises(ValueError, match="equally long"):
        M.evaluate([0.5], [1, 0])
    with pytest.raises(ValueError, match="not empty"):
        M.evaluate([], [])
    with pytest.raises(ValueError, match="metric is 'ece'"):
        M.evaluate([0.5], [1], "ece")


@pytest.mark.parametrize("metric", sorted(M.METRICS))
def test_every_metric_has_an_interval_that_holds_the_value(metric):
    estimate = M.evaluate(*data(200, 0.1), metric, n_boot=200)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.low < estimate.high
    assert estimate == M.evaluate(*data(200, 0.1), metric, n_boot=200)
    if M.METRICS[metric].kind in ("error", "bootstrap"):
        assert estimate != M.evaluate(*data(200, 0.1), metric, n_boot=200, seed=1)


def test_calibration_errors_stand_beside_their_plug_in_value_and_noise_floor():
    f, y = data(400, 0.1)
    for metric in ("smece", "ece_equal_width_10", "ece_equal_mass_10", "mce_equal_width_10", "brier_reliability_10"):
        found = M.evaluate(f, y, metric, n_boot=500)
        assert found.plug_in == pytest.approx(one(M.METRICS[metric], f, y), abs=1e-12)
        assert found.value < found.plug_in
        assert found.floor == pytest.approx(M.noise_floor(f, 100, metric=metric), rel=0.01)
    assert np.isnan(M.evaluate(f, y, "accuracy").plug_in) and np.isnan(M.evaluate(f, y, "accuracy").floor)


def test_a_value_known_nearly_spares_smece_bandwidths_but_changes_nothing():
    for n, shift, seed in ((100, 0.0, 1), (400, 0.1, 2), (1500, 0.0, 3)):
        f, y = data(n, shift, seed)
        assert one(M.smece, f, y, near=one(M.smece, f, y) + 0.003) == one(M.smece, f, y)


def test_noise_floor_is_exceeded_by_miscalibration_only():
    f, _ = data(400)
    floor = M.noise_floor(f, n_draws=200)
    below = sum(one(M.smece, *data(400, 0, seed)) <= floor for seed in range(10, 40))
    assert below >= 25
    assert one(M.smece, *data(400, 0.15)) > floor


def test_reliability_curve_follows_the_truth():
    f, y = data(4000, -0.2)
    curve = M.reliability_curve(f, y, n_boot=100)
    middle = curve[curve["confidence"].between(0.4, 0.8)]
    assert np.abs(middle["accuracy"] - (middle["confidence"] - 0.2)).max() < 0.06
    assert (curve["low"] <= curve["accuracy"] + 1e-9).mean() > 0.95
    assert np.trapezoid(curve["density"], curve["confidence"]) == pytest.approx(1)


def table(n=200, shift=0.0, seed=0):
    confidence, correct = data(n, shift, seed)
    return pd.DataFrame({"question_id": range(n), "confidence": confidence, "correct": correct})


def test_one_seed_is_the_metric_itself():
    scores = table(shift=-0.2)
    for metric in ("smece", "accuracy", "overconfidence", "log_loss"):
        alone = M.evaluate(scores["confidence"], scores["correct"], metric, 100)
        assert M.evaluate_seeds([scores], metric, n_boot=100) == alone


def test_seeds_are_averaged_and_differences_are_paired():
    first, second = table(seed=1, shift=-0.2), table(seed=2, shift=-0.3)
    values = [M.evaluate(t["confidence"], t["correct"]).value for t in (first, second)]
    assert M.evaluate_seeds([first, second]).value == pytest.approx(np.mean(values))
    none = M.evaluate_seeds([first], "smece", [first], 50)
    assert (none.value, none.low, none.high, none.n) == (0.0, 0.0, 0.0, 200)
    difference = M.evaluate_seeds([first], "accuracy", [second], 200)
    assert difference.value == pytest.approx(first["correct"].mean() - second["correct"].mean())
    # Two models that agree on most questions differ by little, whatever the questions: pairing must show it.
    twin = first.assign(correct=np.where(first["question_id"] < 4, 0, first["correct"]))
    paired = M.evaluate_seeds([first], "accuracy", [twin], 400)
    alone = M.evaluate_seeds([first], "accuracy", n_boot=400)
    assert paired.high - paired.low < (alone.high - alone.low) / 2
    with pytest.raises(ValueError, match="different questions"):
        M.evaluate_seeds([first, second.iloc[1:]])
    with pytest.raises(ValueError, match="metric is 'x'"):
        M.evaluate_seeds([first], "x")


def test_contrast_resamples_each_group_on_its_own():
    first, second = table(seed=1, shift=-0.2), table(seed=2, shift=-0.3).iloc[:150]
    found = M.contrast(first, second, "accuracy", 2000)
    assert found.value == pytest.approx(first["correct"].mean() - second["correct"].mean()) and found.n == 350
    spread = np.sqrt(first["correct"].var() / 200 + second["correct"].var() / 150)
    assert (found.high - found.low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.1)


def test_mean_by_counts_a_question_once():
    rows = pd.DataFrame(
        {"question_id": ["a", "a", "b", "c"], "kind": [0, 0, 0, 1], "p": [0.0, 1.0, 1.0, 0.2]},
    )
    found = M.mean_by(rows, ["kind"], "p", 100)
    assert found["value"].tolist() == [0.75, 0.2] and found["n"].tolist() == [2, 1]


def test_no_tables_are_an_error_that_says_so():
    for evaluate in (M.evaluate_seeds, lambda tables: M.mean_over_seeds(tables, "entropy")):
        with pytest.raises(
            ValueError, match=r"^there are no tables to evaluate; give tables of scores, one per training seed$"
        ):
            evaluate([])
    with pytest.raises(ValueError, match=r"^there are no tables to evaluate; give those of 'DPO'$"):
        M.compare({"SFT": [table()], "DPO": []}, ["model"])


def test_the_binned_curve_sums_up_to_the_ece():
    rng = np.random.default_rng(0)
    f = rng.random(300)
    y = (rng.random(300) < f**2).astype(int)
    table = M.binned_curve(f, y)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    assert (gaps * table["n"]).sum() / 300 == pytest.approx(float(M.ece_equal_width(f, y, np.ones((1, 300)))[0]))
    edges = M.binned_curve([0.0, 0.1, 0.11, 1.0], [0, 1, 1, 0])[["low", "high", "n"]]
    np.testing.assert_allclose(edges, [[0, 0.1, 2], [0.1, 0.2, 1], [0.9, 1.0, 1]])


def test_histogram_of_right_and_wrong():
    found = M.confidence_histogram([0.25, 0.3, 1.0, 0.99, 0.26], [1, 0, 1, 1, 0], 0.25, 3)
    assert list(found["right"]) == [pytest.approx(1 / 3), 0, pytest.approx(2 / 3)]
    assert list(found["wrong"]) == [1, 0, 0] and found["n_right"][0] == 3 and found["n_wrong"][0] == 2
    assert M.confidence_histogram([0.5], [1])["wrong"].isna().all()
    with pytest.raises(ValueError, match=r"0\.1 lies below"):
        M.confidence_histogram([0.1], [1], 0.25)


def test_mean_over_seeds_averages_questions_first():
    tables = [pd.DataFrame({"entropy": [0.0, 2.0]}), pd.DataFrame({"entropy": [1.0, 3.0]})]
    assert M.mean_over_seeds(tables, "entropy", 50).value == 1.5


def test_a_wide_table_shows_the_noise_floor_beside_every_error():
    rng = np.random.default_rng(0)
    f = rng.random(60)
    one = pd.DataFrame({"question_id": range(60), "confidence": f, "correct": (rng.random(60) < f).astype(float)})
    table = M.compare({("b", 2): one, ("a", 1): one}, ["model", "k"], ["accuracy", "smece"], n_boot=50)
    found = M.wide(table, ["model", "k"])
    assert list(found.columns) == ["accuracy", "smece", "smece, noise floor"]
    assert list(found.index) == [("b", 2), ("a", 1)] and found.notna().all(axis=None)
    assert (found["smece, noise floor"] == table.loc[table["metric"] == "smece", "floor"].to_numpy()).all()
    single = M.wide(table[table["model"] == "a"], "model")
    assert list(single.index) == ["a"] and single["accuracy"].iloc[0] == one["correct"].mean()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "median"}, "kind is one of"),
        ({"kind": "mean"}, "means, they alone, have `each`"),
        ({"each": lambda f, y: f}, "has kind 'bootstrap' and an `each`"),
        ({"kind": "rank"}, "the interval of kind 'rank' is that of AUROC"),
    ],
)
def test_a_metric_whose_kind_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(M.METRICS["aurc"], **change)
