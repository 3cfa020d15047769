import numpy as np
import pytest

from calib_utils import metrics
from calib_utils.studies import regimes

N, K = 40_000, 4


@pytest.fixture(scope="module")
def truth():
    """Target distributions with labels to tune on and new labels, both drawn from them."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(K, 0.6), size=N)
    tuned, new = ((p.cumsum(axis=1) > rng.random((N, 1))).argmax(axis=1) for _ in range(2))
    return p, tuned, new


def ece(p, labels):
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    return metrics.evaluate(confidence, correct, "ece_equal_width_10", 2).plug_in


def accuracy(p, labels):
    return (p.argmax(axis=1) == labels).mean()


def test_every_accuracy_up_to_the_critical_one_is_calibratable(truth):
    p, _, new = truth
    critical, reached = p.max(axis=1).mean(), []
    for share in (0.0, 0.3, 0.6, 1.0):  # knows p* for this share of the questions, and the mean for the others
        model = np.where((np.arange(N) < share * N)[:, None], p, p.mean(axis=0))
        reached.append(accuracy(model, new))
        assert ece(model, new) < 0.015
        assert regimes.regime(min(reached[-1], critical), critical).method == "CFT"
    assert reached == sorted(reached) and reached[0] < 0.27 and reached[-1] == pytest.approx(critical, abs=0.01)


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("certain", [0.5, 0.8, 1.0])
def test_learned_noise_costs_calibration_on_one_side(truth, noise, certain):
    p, tuned, new = truth
    critical = p.max(axis=1).mean()
    by_heart = np.full((N, K), (1 - certain) / (K - 1))
    by_heart[np.arange(N), tuned] = certain
    model = np.where((np.arange(N) < noise * N)[:, None], by_heart, p)
    a = accuracy(model, tuned)
    found = regimes.regime(a, critical)
    assert a > critical and not found.calibratable and found.method == "RCFT"
    assert found.bound == pytest.approx((a - critical) / 2)
    assert ece(model, tuned) + ece(model, new) >= a - accuracy(model, new) - 1e-9
    assert max(ece(model, tuned), ece(model, new)) >= found.bound - 0.005


def test_certainty_is_the_upper_bound(truth):
    p, _, new = truth
    sharp = p**8 / (p**8).sum(axis=1, keepdims=True)
    certain = np.eye(K)[p.argmax(axis=1)]
    assert ece(certain, new) == pytest.approx(regimes.upper_bound(accuracy(certain, new)))
    assert ece(p, new) < ece(sharp, new) < regimes.upper_bound(accuracy(sharp, new))
    confidence, correct = np.array([1.0] * 3 + [0.25] * 7), np.array([0] * 3 + [1] * 7)
    worst = metrics.evaluate(confidence, correct, "ece_equal_width_10", 2).plug_in
    assert worst == pytest.approx(regimes.upper_bound(0.7, K))


def test_the_log_loss_bounds_the_error(truth):
    p, _, new = truth
    entropy = -(p * np.log(p.clip(1e-300))).sum(axis=1).mean()
    for temperature in (0.3, 0.6, 1.0, 2.0):
        model = p ** (1 / temperature)
        model /= model.sum(axis=1, keepdims=True)
        loss = -(p * np.log(model.clip(1e-300))).sum(axis=1).mean()
        assert ece(model, new) <= regimes.excess_bound(max(loss, entropy), entropy) + 0.01


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: regimes.regime(1.2, 0.5), r"accuracy is 1\.2"),
        (lambda: regimes.lower_bound(0.5, -0.1), r"critical is -0\.1"),
        (lambda: regimes.upper_bound(0.5, 1), "n_options is 1"),
        (lambda: regimes.excess_bound(0.1, 0.2), "at least the entropy"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
