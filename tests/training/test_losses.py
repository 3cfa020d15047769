import math

import pytest
import torch

from calib_utils.training import losses


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


def test_rcft_targets_by_hand():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    found = losses.rcft_targets(p, torch.tensor([0.4, 0.9]))
    assert torch.allclose(found, torch.tensor([[0.4, 0.45, 0.15], [0.05, 0.05, 0.9]]))


@pytest.mark.parametrize("options", [2, 4, 10])
def test_rcft_targets_sum_to_one_for_any_number_of_options(options):
    torch.manual_seed(0)
    p = torch.rand(50, options).softmax(dim=1)
    sure = torch.eye(options)  # all mass on one option
    for rows in (p, sure):
        targets = losses.rcft_targets(rows, torch.rand(len(rows)))
        assert torch.allclose(targets.sum(dim=1), torch.ones(len(rows))) and (targets >= 0).all()


def test_rcft_by_hand_and_empty_bins_are_harmless():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], requires_grad=True)
    accuracy, bins = torch.tensor([0.4, 0.4, 0.9]), torch.tensor([5, 5, 9])
    targets = losses.rcft_targets(p, accuracy)
    each = ((p - targets) ** 2).sum(dim=1)
    value = losses.rcft(p, accuracy, bins)
    assert value.item() == pytest.approx(((each[0] + each[1]) / 2 + each[2]).item())
    value.backward()
    assert torch.allclose(p.grad[2], 2 * (p - targets)[2].detach())  # targets carry no gradient


def test_rcft_is_zero_at_its_targets():
    p = torch.tensor([[0.7, 0.2, 0.1]])
    assert losses.rcft(p, torch.tensor([0.7]), torch.tensor([6])).item() == pytest.approx(0, abs=1e-12)


def test_rcft_leaves_padded_options_alone():
    p = torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.3, 0.2]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    targets = losses.rcft_targets(p, torch.tensor([0.8, 0.5]), mask)
    assert torch.allclose(targets[0], torch.tensor([0.8, 0.2, 0.0]))
    alone = losses.rcft(p[:1, :2], torch.tensor([0.8]), torch.tensor([5]))
    both = losses.rcft(p, torch.tensor([0.8, 0.5]), torch.tensor([5, 4]), mask)
    assert both.item() == pytest.approx(alone.item())


@pytest.mark.parametrize(
    "p, accuracy, mask, message",
    [
        ([[0.6, 0.6]], [0.5], None, "row 0 sum to 1.2"),
        ([[0.6, 0.4]], [1.5], None, "bin accuracies"),
        ([[1.0, 0.0]], [0.5], [[True, False]], "fewer than two options"),
    ],
)
def test_rcft_refuses_what_is_no_distribution(p, accuracy, mask, message):
    with pytest.raises(ValueError, match=message):
        losses.rcft_targets(torch.tensor(p), torch.tensor(accuracy), None if mask is None else torch.tensor(mask))
