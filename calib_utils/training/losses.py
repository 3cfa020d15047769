"""Losses: the calibration terms of CATTO and RCFT as pure functions of tensors."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from calib_utils.crossing import Lazy

torch = Lazy("torch")
FORMS = ("l1", "l2", "bce")
REJECTED_SIDES = ("off", "z", "1-z")
_EPS = 1e-6  # a confidence nearer to 0 or 1 counts as this far from it in `bce`


def token_confidence(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidence and margin of every token, in float32.

    c_t = max_v p_t(v) and m_t = p_t(y_t) - max_{v != y_t} p_t(v), with p_t = softmax(logits_t).

    Parameters
    ----------
    logits : (..., V) of any floating dtype, V >= 2.
    labels : (...), the observed tokens y_t.

    Returns
    -------
    confidence in (0, 1] and margin in [-1, 1], both (...); gradients flow through both.
    """
    p = logits.float().softmax(dim=-1)
    best = p.topk(2, dim=-1)
    of_label = p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    runner_up = torch.where(best.indices[..., 0] == labels, best.values[..., 1], best.values[..., 0])
    return best.values[..., 0], of_label - runner_up


def correctness_surrogate(margin: torch.Tensor | np.ndarray, temperature: float = 1.0, gradient: bool = True):
    """Smooth correctness z_t = sigmoid(m_t / s) (CATTO, arXiv 2601.23096).

    s = `temperature` = 1 is the literal form, which confines z to (0.27, 0.73); s -> 0 is the step [y_t = argmax].
    With `gradient` False, z is a fixed target. An array gives an array. Raises ValueError for s <= 0.
    """
    if not temperature > 0:
        raise ValueError(f"surrogate temperature is {temperature}; it must be positive")
    if isinstance(margin, np.ndarray):
        return expit(margin / temperature)
    z = torch.sigmoid(margin / temperature)
    return z if gradient else z.detach()


def calibration_gap(confidence: torch.Tensor, target: torch.Tensor, form: str = "l1") -> torch.Tensor:
    """Distance of confidence and target per token: |c - z|, (c - z)^2, or -z log c - (1 - z) log(1 - c).

    Raises ValueError for a form not in `FORMS`.
    """
    if form == "l1":
        return (confidence - target).abs()
    if form == "l2":
        return (confidence - target) ** 2
    if form == "bce":
        c = confidence.clamp(_EPS, 1 - _EPS)
        return -(target * c.log() + (1 - target) * (-c).log1p())
    raise ValueError(f"form is {form!r}; use one of {FORMS}")


def response_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of each response (B, T) -> (B,); a response without tokens is 0."""
    mask = mask.to(values.dtype)
    return (values * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)


def catto(
    confidence: torch.Tensor,
    margin: torch.Tensor,
    mask: torch.Tensor,
    rejected: bool,
    temperature: float = 1.0,
    gradient: bool = True,
    rejected_side: str = "z",
    form: str = "l1",
) -> torch.Tensor:
    """L_cal of each response: mean_t |c_t - z_t| over its tokens (CATTO, arXiv 2601.23096).

    Parameters
    ----------
    confidence, margin, mask : (B, T), from `token_confidence`; mask is 1 on response tokens.
    rejected : whether these are dispreferred responses, for which `rejected_side` says what to compare with:
        `"z"` [paper], `"1-z"` (a public re-implementation), or `"off"`, no term.
    temperature, gradient, form : see `correctness_surrogate` and `calibration_gap`; the paper has s = 1 and l1.

    Returns
    -------
    (B,), at least 0. Raises ValueError for an unknown choice.
    """
    if rejected_side not in REJECTED_SIDES:
        raise ValueError(f"rejected_side is {rejected_side!r}; use one of {REJECTED_SIDES}")
    z = correctness_surrogate(margin, temperature, gradient)
    if rejected and rejected_side == "off":
        return torch.zeros_like(confidence[..., 0])
    if rejected and rejected_side == "1-z":
        z = 1 - z
    return response_mean(calibration_gap(confidence, z, form), mask)


def rcft_targets(p: torch.Tensor, accuracy: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """What RCFT's M-step pulls option probabilities towards (Restoring Calibration, arXiv 2505.01997).

    t_top = acc_k, the frozen accuracy of the bin that the sample is in, and t_j = (1 - acc_k) p_j / (1 - p_top) for
    the other options. Where p_top is 1 to rounding, the others share 1 - acc_k evenly.

    Parameters
    ----------
    p : (n, K) option probabilities, rows sum to 1.
    accuracy : (n,) in [0, 1], the accuracy of each sample's bin.
    mask : (n, K), True where a row has an option; a row has at least two. None: everywhere.

    Returns
    -------
    (n, K), rows sum to 1, without gradient. Raises ValueError for rows that do not sum to 1, an accuracy outside
    [0, 1], or a row with fewer than two options.
    """
    p, accuracy = p.detach().float(), accuracy.detach().float()
    mask = torch.ones_like(p, dtype=torch.bool) if mask is None else mask.bool()
    sums = (p * mask).sum(dim=1)
    wrong = torch.nonzero((sums - 1).abs() > 1e-3)
    if len(wrong):
        raise ValueError(f"the probabilities of row {int(wrong[0])} sum to {float(sums[wrong[0]]):.4g}, not to 1")
    if mask.sum(dim=1).min() < 2:
        raise ValueError("a row has fewer than two options")
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError(f"bin accuracies must lie in [0, 1], got {accuracy.tolist()}")
    top = p.masked_fill(~mask, -1).argmax(dim=1, keepdim=True)
    others = mask.scatter(1, top, False)
    rest = p * others
    left = rest.sum(dim=1, keepdim=True)
    even = others / others.sum(dim=1, keepdim=True)
    share = torch.where(left > _EPS, rest / left.clamp(min=_EPS), even)
    return (share * (1 - accuracy[:, None])).scatter(1, top, accuracy[:, None])


def rcft(
    p: torch.Tensor,
    accuracy: torch.Tensor,
    bins: torch.Tensor,
    mask: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """RCFT's calibration term: sum over bins k of (1 / n_k) sum_{i in k} sum_j (p_ij - t_ij)^2 (arXiv 2505.01997).

    Parameters
    ----------
    p, accuracy, mask : as in `rcft_targets`; gradients flow through p.
    bins : (n,) the frozen bin of every sample. Bins without samples do not matter.
    sizes : (n,) n_k of each sample's bin, where the batch goes on elsewhere. None: the samples given are counted.

    Returns
    -------
    A scalar, at least 0.
    """
    squared = (p.float() - rcft_targets(p, accuracy, mask)) ** 2
    if mask is not None:
        squared = squared * mask
    if sizes is None:
        sizes = (bins[:, None] == bins).sum(dim=1)
    return (squared.sum(dim=1) / sizes).sum()
