import math

import pytest
import torch

from calib_utils import losses


def literal(logits, labels, rejected, s, side, form):
    """The equations of the paper, one token at a time, in float64."""
    total = []
    for row, y in zip(logits.double(), labels.tolist(), strict=True):
        p = torch.softmax(row, dim=0)
        others = torch.cat([p[:y], p[y + 1 :]])
        c, z = p.max(), 1 / (1 + torch.exp(-(p[y] - others.max()) / s))
        if rejected and side == "1-z":
            z = 1 - z
        total.append(
            {
                "l1": abs(c - z),
                "l2": (c - z) ** 2,
                "bce": -(z * torch.log(c) + (1 - z) * torch.log(1 - c)),
            }[form]
        )
    return sum(total) / len(total)


@pytest.mark.parametrize("form", losses.FORMS)
@pytest.mark.parametrize("side", ["z", "1-z"])
@pytest.mark.parametrize("s", [1.0, 0.1])
@pytest.mark.parametrize("rejected", [False, True])
def test_the_term_agrees_with_the_literal_equations(form, side, s, rejected):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 11) * 2, torch.randint(11, (2, 5))
    labels[0, :3] = logits[0, :3].argmax(dim=-1)
    c, m = losses.token_confidence(logits, labels)
    measured = losses.catto(c, m, torch.ones(2, 5), rejected, s, True, side, form)
    for i in range(2):
        assert measured[i].item() == pytest.approx(
            literal(logits[i], labels[i], rejected, s, side, form).item(), abs=1e-6
        )


def test_hand_values():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]))
    c, m = losses.token_confidence(logits, torch.tensor([0, 2]))
    assert c.tolist() == pytest.approx([0.7, 0.5]) and m.tolist() == pytest.approx([0.5, -0.3])
    z = losses.correctness_surrogate(m, 0.5)
    assert z.tolist() == pytest.approx([1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(0.6))])
    gap = losses.calibration_gap(c, z)
    mask = torch.tensor([[1, 1]])
    assert losses.catto(c[None], m[None], mask, False, 0.5).item() == pytest.approx(gap.mean().item())
    only_first = losses.catto(c[None], m[None], torch.tensor([[1, 0]]), False, 0.5)
    assert only_first.item() == pytest.approx(abs(0.7 - z[0].item()))
    assert losses.catto(c[None], m[None], mask, True, rejected_side="off").item() == 0
    assert losses.catto(c[None], m[None], mask, False, rejected_side="off").item() > 0
    assert losses.catto(c[None], m[None], torch.zeros(1, 2), False).item() == 0


def test_the_literal_surrogate_is_confined():
    z = losses.correctness_surrogate(torch.tensor([-1.0, 1.0]))
    assert z.tolist() == pytest.approx([0.2689, 0.7311], abs=1e-4)


@pytest.mark.parametrize("form", losses.FORMS)
@pytest.mark.parametrize("gradient", [True, False])
def test_gradients(form, gradient):
    torch.manual_seed(1)
    c = (torch.rand(2, 4, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    m = (torch.rand(2, 4, dtype=torch.float64) * 1.6 - 0.8).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])

    def term(c, m):
        return losses.catto(c, m, mask, True, 0.5, gradient, "1-z", form)

    if gradient:
        assert torch.autograd.gradcheck(term, (c, m))
    term(c, m).sum().backward()
    assert (m.grad is not None and m.grad.abs().sum() > 0) == gradient
    assert (c.grad[:, 3] == 0).all() and (c.grad[0, :3] != 0).all()


@pytest.mark.parametrize("form", losses.FORMS)
def test_certain_tokens_are_safe_in_bfloat16(form):
    logits = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    logits.requires_grad_()
    c, m = losses.token_confidence(logits, torch.tensor([0, 0, 1]))
    assert c.dtype == torch.float32 and m.tolist() == pytest.approx([1, -1, 0])
    value = losses.catto(c[None], m[None], torch.ones(1, 3), False, 0.01, True, "z", form)
    value.sum().backward()
    assert value.isfinite().all() and logits.grad.isfinite().all()


def test_unknown_choices_are_errors():
    c = torch.full((1, 1), 0.5)
    with pytest.raises(ValueError, match="temperature is 0"):
        losses.catto(c, c, c, False, 0)
    with pytest.raises(ValueError, match="rejected_side is 'both'"):
        losses.catto(c, c, c, False, rejected_side="both")
    with pytest.raises(ValueError, match="form is 'l3'"):
        losses.catto(c, c, c, False, form="l3")
