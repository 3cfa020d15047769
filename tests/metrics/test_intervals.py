import numpy as np
import pandas as pd
import pytest
from scipy import stats

from calib_utils import data, semantics
from calib_utils import metrics as M
from calib_utils.metrics import coverage, estimates, intervals, kernels
from calib_utils.metrics.scores import auroc, checked
from calib_utils.types import SPLITS, Question

Z = stats.norm.ppf(0.975)


def part(value, low, high, influence=(1.0, -1.0, 0.0)):
    return intervals.Part(value, low, high, np.nan, np.nan, np.array(influence))


def scores(n=400, gap=0.0, seed=0, low=0.25):
    rng = np.random.default_rng(seed)
    f = low + (1 - low) * rng.random(n)
    return pd.DataFrame(
        {"question_id": range(n), "confidence": f, "correct": (rng.random(n) < f - gap).astype(float)}
    )


def width(estimate):
    return estimate.high - estimate.low


def test_differences_add_distances_in_squares_less_what_is_correlated():
    first, second, alone = part(0.5, 0.47, 0.54), part(0.2, 0.14, 0.24), np.arange(3)
    value, low, high = intervals.combine([first, second], [1, -1], None)
    assert value == pytest.approx(0.3)
    assert (value - low, high - value) == pytest.approx(
        (0.05, np.hypot(0.04, 0.06))
    )  # 0.03 with 0.04, 0.04 with 0.06
    _, low, high = intervals.combine([first, second], [1, -1], alone)  # the same influences: correlation 1
    assert (value - low, high - value) == pytest.approx((0.01, 0.02))
    opposite = part(0.2, 0.14, 0.24, (-1.0, 1.0, 0.0))
    _, low, _ = intervals.combine([first, opposite], [1, -1], alone)
    assert value - low == pytest.approx(0.07)
    # A mean of two: half of each distance, in squares.
    value, low, _ = intervals.combine([first, second], [0.5, 0.5], None)
    assert value - low == pytest.approx(np.hypot(0.015, 0.03))


def test_the_spread_between_seeds_is_added_with_its_few_degrees_of_freedom():
    one = part(0.5, 0.5 - 0.02 * Z, 0.5 + 0.02 * Z)
    _, low, _ = intervals.combine([one], [1.0], None, between=(0.03**2, 2))
    freedom = 2 * ((0.02**2 + 0.03**2) / 0.03**2) ** 2
    assert 0.5 - low == pytest.approx(stats.t.ppf(0.975, freedom) * np.hypot(0.02, 0.03))
    tables = [scores(seed=s, gap=g) for s, g in ((1, 0.1), (2, 0.2), (3, 0.3))]
    means = [table["correct"].mean() for table in tables]
    apart = M.evaluate_seeds(tables, "accuracy")
    alike = M.evaluate_seeds([tables[0]], "accuracy")
    assert apart.value == pytest.approx(np.mean(means)) and width(apart) > 1.3 * width(alike)
    # A third seed that starts from the first one's model is no new seed: two are left, (a + c) / 2 and b.
    same = [table.assign(origin=origin) for table, origin in zip(tables, (0, 1, 0), strict=True)]
    assert estimates.between_seeds(means, same, [], [])[0] == pytest.approx(
        np.var([(means[0] + means[2]) / 2, means[1]], ddof=1) / 2
    )
    assert estimates.between_seeds(means, same, [], [])[1] == 1
    # Seeds on both sides are paired: equal differences leave no spread.
    assert estimates.between_seeds(means, tables, [m - 0.1 for m in means], tables) == pytest.approx((0.0, 2))


def test_when_all_are_right_accuracy_has_the_interval_of_agresti_and_coull():
    right = 12 / 14  # ten of ten, and two of four more
    reach = stats.t.ppf(0.975, 9) * np.sqrt(14 * right * (1 - right) * 10 / 9) / 14
    found = M.evaluate(np.full(10, 0.9), np.ones(10), "accuracy")
    assert found.value == 1.0 and found.high == 1.0
    assert found.low == pytest.approx(right - reach)


def test_auroc_solves_newcombes_equation_at_both_ends():
    table = scores(60, 0.1)
    found = M.evaluate(table["confidence"], table["correct"], "auroc")
    right = table["correct"].sum()
    wrong = 60 - right
    for at in (found.low, found.high):
        terms = 1 + (30 - 1) * ((1 - at) / (2 - at) + at / (1 + at))
        assert abs(found.value - at) == pytest.approx(Z * np.sqrt(at * (1 - at) * terms / (right * wrong)), rel=1e-6)
    nothing = M.evaluate([0.2, 0.9], [1, 1], "auroc")
    assert np.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, 1.0)


def test_auroc_influences_are_the_derivative_by_the_weights():
    table, step = scores(50, 0.1), 1e-5
    f, y = checked(table["confidence"], table["correct"])
    value = auroc(f, y, np.ones((1, 50)))[0]
    moved = auroc(f, y, np.ones((50, 50)) + step * np.eye(50))
    assert (moved - value) / step * 50 == pytest.approx(estimates._auroc_influence(f, y, value), abs=1e-3)


def test_fast_smece_is_smece_to_a_thousandth():
    rng = np.random.default_rng(0)
    for n in (100, 1500):
        for f in (rng.random(n), rng.beta(20, 2, n), 0.85 + 0.02 * rng.random(n)):
            outcomes = (rng.random((20, n)) < f - 0.05 * (np.arange(20)[:, None] % 3)).astype(float)
            exact = M.smece(f, outcomes, np.ones(outcomes.shape))
            assert kernels.smooth_error(f, outcomes) == pytest.approx(exact, abs=0.004)
            assert abs(np.mean(kernels.smooth_error(f, outcomes) - exact)) < 0.001


@pytest.mark.parametrize("metric", ["smece", "ece_equal_width_10", "ece_equal_mass_10"])
def test_errors_are_debiased_and_zero_is_held_where_there_is_none(metric):
    none = M.evaluate(*scores(4000, 0.0)[["confidence", "correct"]].to_numpy().T, metric)
    assert none.low == 0 and none.value < none.plug_in < none.floor and none.high < 0.04
    some = M.evaluate(*scores(4000, 0.1)[["confidence", "correct"]].to_numpy().T, metric)
    assert some.low < 0.1 < some.high and some.low > none.high and abs(some.value - 0.1) < 0.02
    assert some.plug_in > some.floor


def test_questions_about_one_entity_count_as_what_they_tell():
    # Every question four times: 400 rows tell as much as 100 questions.
    single = scores(100, 0.1)
    rows = pd.concat([single] * 4, ignore_index=True).assign(entity=list(range(100)) * 4)
    for metric in ("accuracy", "overconfidence", "auroc", "smece", "ece_equal_width_10", "log_loss"):
        alone = width(M.evaluate_seeds([single], metric))
        unknown = width(M.evaluate_seeds([rows.drop(columns="entity")], metric))
        assert width(M.evaluate_seeds([rows], metric)) == pytest.approx(alone, rel=0.25)
        assert unknown < 0.75 * alone
    with pytest.raises(ValueError, match="3 entities for 2 questions"):
        M.evaluate([0.5, 0.6], [1, 0], entities=[1, 2, 3])


def test_facts_about_one_entity_share_it_and_other_questions_stand_for_themselves():
    facts = {question.id: question for split in SPLITS for question in data.load_questions("facts", split)}
    assert data.entity(facts["calling_code/AD"]) == "country:AD"
    about = [question for question in facts.values() if data.entity(question) == "country:AD"]
    assert len(about) > 2 and len({question.relation for question in about}) == len(about)
    other = Question("mine", "Who?", "Me", "people", "test", "It is me.")
    assert data.entity(other) == "mine"
    table = semantics.score_options([facts["calling_code/AD"]], [np.log(np.full(4, 0.25))])
    assert table["entity"].tolist() == ["country:AD"]


def test_an_average_over_tasks_covers_whatever_the_correlation_between_them():
    one, two = M.Estimate(0.3, 0.2, 0.5, 200, 0.32, 0.1), M.Estimate(0.1, 0.0, 0.1, 100, 0.14, 0.3)
    assert M.average([one, two]) == M.Estimate(0.2, 0.1, 0.3, 100, pytest.approx(0.23), 0.2)
    assert M.average([one]) == one
    rng = np.random.default_rng(0)
    for alike in (1.0, 0.5, 0.0, -0.5):
        errors = rng.multivariate_normal([0, 0], [[1, alike], [alike, 1]], 4000)
        found = [M.average([M.Estimate(e, e - Z, e + Z, 9) for e in pair]) for pair in errors]
        held = np.mean([estimate.low < 0 < estimate.high for estimate in found])
        assert held > 0.94 and (alike < 1 or held < 0.96)
    with pytest.raises(ValueError, match="no estimates to average"):
        M.average([])


def test_a_relative_reduction_is_one_less_the_ratio():
    before, after = scores(4000, 0.2), scores(4000, 0.1, seed=0)
    found = M.relative_reduction([before], [after])
    assert found.low < 0.5 < found.high and abs(found.value - 0.5) < 0.05 and width(found) < 0.25
    same = M.relative_reduction([before], [before])
    assert (same.value, same.low, same.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-3)
    lucky = scores(400, 0.0, seed=88)  # of these outcomes even calibrated ones seldom read less
    outcomes = checked(lucky["confidence"], lucky["correct"])
    assert estimates._part("ece_equal_width_10", *outcomes, np.arange(400), 200, 0).high < 0
    perfect = M.relative_reduction([scores(400, 0.2)], [lucky], n_boot=200)
    assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)
    nothing = M.relative_reduction([scores(200, 0.0)], [scores(200, 0.0, seed=4)])
    assert nothing.low == -np.inf and nothing.high <= 1.0


def test_the_truth_of_the_simulation_is_the_population_value():
    size = coverage._size("nearly constant, overconfident", 0.1)
    assert size == pytest.approx(0.1, abs=0.003)  # a constant gap is its own smECE
    for metric in ("overconfidence", "ece_equal_width_10"):
        assert coverage.truth("nearly constant, overconfident", size, metric) == pytest.approx(size, abs=1e-4)
    assert coverage.truth("spread, too sharp", 0.0, "auroc") == pytest.approx(
        auroc(*_answers("spread, too sharp"), np.ones((1, 40000)))[0], abs=0.01
    )


def _answers(law):
    table = coverage.draw(law, [0.0], 40000, np.random.default_rng(0))[0]
    return table["confidence"].to_numpy(), table["correct"].to_numpy()


@pytest.mark.slow
def test_intervals_hold_the_truth_in_nine_of_ten_data_sets():
    repeats = 24
    laws = [law for law in coverage.LAWS if law != coverage.SHARP]
    quantities = ("smece", "ece_equal_width_10", "ece_equal_mass_10", "overconfidence", "auroc", "accuracy")
    table = coverage.simulate(repeats, (100, 400), (0.0, 0.05, 0.2), laws, 150, scored=quantities, extras=False)
    # One cell is known to sqrt(0.9 x 0.1 / 24) = 0.06, a mean over its 18 cells to 0.015.
    # Three of these errors less for a cell, two for a mean.
    assert table["coverage"].min() >= 0.9 - 3 * np.sqrt(0.09 / repeats)
    pooled = table.groupby(["quantity", "comparison"])["coverage"].agg(["mean", "size"])
    assert (pooled["mean"] >= 0.9 - 2 * np.sqrt(0.09 / (repeats * pooled["size"]))).all(), pooled
