import numpy as np
import pytest

from calib_utils.posthoc import fit_temperature, scaled_confidence


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
    correct = (answers == sharpened.argmax(axis=1)).astype(int)
    assert fit_temperature(list(sharpened), correct) == pytest.approx(2.5, rel=0.1)
    assert fit_temperature(list(truth), correct) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [-0.1, 1.1], [np.nan, 1.0]])
def test_what_is_no_distribution_is_an_error(bad):
    with pytest.raises(ValueError, match="distribution 1"):
        scaled_confidence([np.array([0.5, 0.5]), np.array(bad)], 1.0)
    with pytest.raises(ValueError, match="temperature is 0"):
        scaled_confidence([np.array([0.5, 0.5])], 0)
