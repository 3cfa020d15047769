import numpy as np
import pytest
from scipy.optimize import brentq

from calib_utils.studies.temperature_scaling import fit_temperature, scaled_confidence


def test_scaling_by_hand():
    p = np.array([0.64, 0.32, 0.04])
    assert scaled_confidence([p], 1.0) == pytest.approx([0.64])
    assert scaled_confidence([p], 2.0) == pytest.approx([0.8 / (0.8 + np.sqrt(0.32) + 0.2)])
    assert scaled_confidence([np.array([1.0, 0.0])], 5.0) == pytest.approx([1.0])
    assert scaled_confidence([p], 0.05) == pytest.approx([1.0], abs=1e-4)


def test_the_temperature_of_an_overconfident_model_is_found():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(4), 4000)
    answers = np.array([rng.choice(4, p=p) for p in truth])
    sharpened = truth**2.5 / (truth**2.5).sum(axis=1, keepdims=True)
    assert fit_temperature(list(sharpened), answers) == pytest.approx(2.5, rel=0.05)
    assert fit_temperature(list(truth), answers) == pytest.approx(1.0, rel=0.05)


def test_the_loss_is_that_of_all_classes_not_of_the_top_alone():
    # Three questions of p = (0.6, 0.3, 0.1) with the classes 0, 0 and 2: with b = 1/T the slope of the loss is 0
    # where the mean of log p under the scaled distribution is (2 log 0.6 + log 0.1) / 3.
    p, wanted = np.array([0.6, 0.3, 0.1]), (2 * np.log(0.6) + np.log(0.1)) / 3
    b = brentq(lambda b: (p**b * np.log(p)).sum() / (p**b).sum() - wanted, 0.01, 5)
    assert fit_temperature([p] * 3, [0, 0, 2]) == pytest.approx(1 / b, rel=1e-3)
    # The top class alone, right in two of three, would ask for a top share of 2/3.
    top_alone = brentq(lambda b: (p**b).max() / (p**b).sum() - 2 / 3, 0.01, 5)
    assert abs(1 / top_alone - 1 / b) > 0.1


def test_a_true_class_that_was_never_drawn_counts_as_not_the_top():
    # (0.8, 0.2) right in half of the questions, else none of the classes: a top share of one half, so T is large.
    assert fit_temperature([np.array([0.8, 0.2])] * 2, [0, None]) == pytest.approx(20, rel=0.01)
    # Right in three of four: 0.8^b / (0.8^b + 0.2^b) = 3/4 at b = log 3 / log 4.
    found = fit_temperature([np.array([0.8, 0.2])] * 4, [0, 0, 0, None])
    assert found == pytest.approx(np.log(4) / np.log(3), rel=1e-3)
    # One class with everything says nothing about T, whether it is right or not.
    certain = [np.array([1.0, 0.0]), np.array([1.0])]
    assert fit_temperature([*[np.array([0.8, 0.2])] * 4, *certain], [0, 0, 0, None, 0, None]) == pytest.approx(found)


def test_labels_that_are_no_classes_are_an_error():
    with pytest.raises(ValueError, match=r"label 1 is 2; .* 0\.\.1"):
        fit_temperature([np.array([0.5, 0.5])] * 2, [0, 2])
    with pytest.raises(ValueError, match="2 distributions and 1 labels"):
        fit_temperature([np.array([0.5, 0.5])] * 2, [0])


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [-0.1, 1.1], [np.nan, 1.0]])
def test_what_is_no_distribution_is_an_error(bad):
    with pytest.raises(ValueError, match="distribution 1"):
        scaled_confidence([np.array([0.5, 0.5]), np.array(bad)], 1.0)
    with pytest.raises(ValueError, match="temperature is 0"):
        scaled_confidence([np.array([0.5, 0.5])], 0)
