"""CATTO: a token-level calibration loss added to DPO (arXiv 2601.23096), as a trainer in place of trl's."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils as trl_utils

from calib_utils import losses

_TILE = 2**24  # logits held in float32 at once


@dataclass
class CATTOConfig(DPOConfig):
    """`trl.DPOConfig` with the calibration term: L = L_DPO + lambda (L_cal(chosen) + L_cal(rejected)).

    The defaults are the paper's literal form. `[choice]` marks what the paper leaves open.

    Attributes
    ----------
    calibration_weight : lambda >= 0; 0 is DPO itself.
    surrogate_temperature : s > 0 of z = sigmoid(margin / s); 1 is the literal form.
    surrogate_gradient : let the gradient through z [choice].
    rejected_side : what dispreferred responses are compared with: `"z"` [paper], `"1-z"`, or `"off"`.
    calibration_form : `"l1"` [paper], `"l2"` or `"bce"`.
    """

    calibration_weight: float = field(default=1.0, metadata={"help": "Weight of the calibration term (lambda)."})
    surrogate_temperature: float = field(default=1.0, metadata={"help": "Temperature s of the surrogate."})
    surrogate_gradient: bool = field(default=True, metadata={"help": "Whether gradients flow through z."})
    rejected_side: str = field(default="z", metadata={"help": "Target on dispreferred responses: z, 1-z or off."})
    calibration_form: str = field(default="l1", metadata={"help": "Distance of confidence and target: l1, l2, bce."})

    def __post_init__(self):
        super().__post_init__()
        if not self.calibration_weight >= 0:
            raise ValueError(f"calibration_weight is {self.calibration_weight}; it must be 0 or more")
        probe = torch.full((1, 1), 0.5)  # the loss itself refuses what it does not know
        losses.catto(probe, probe, probe, True, *self.calibration)

    @property
    def calibration(self) -> tuple:
        """The choices of `losses.catto`, in its order."""
        return self.surrogate_temperature, self.surrogate_gradient, self.rejected_side, self.calibration_form


class CATTOTrainer(DPOTrainer):
    """`trl.DPOTrainer` with the calibration term of `CATTOConfig`; everything else is trl's own.

    The term is computed from the same projection to the vocabulary as DPO's log-probabilities: no second pass of
    the policy, no second output layer. Logs `calibration/chosen`, `calibration/rejected` (the two terms) and
    `confidence/chosen`, `confidence/rejected` (mean c_t).
    """

    _tag_names: ClassVar[list[str]] = ["trl", "dpo", "catto"]
    _name = "CATTO"

    def __init__(self, model=None, ref_model=None, args: CATTOConfig | None = None, **options):
        """As `trl.DPOTrainer`; TypeError for any other configuration than a `CATTOConfig`."""
        if not isinstance(args, CATTOConfig):
            raise TypeError(f"CATTOTrainer takes a CATTOConfig, got {type(args).__name__}")
        super().__init__(model, ref_model, args, **options)

    def _compute_loss(self, model, inputs, return_outputs):
        if self.args.calibration_weight == 0:
            return super()._compute_loss(model, inputs, return_outputs)
        with _scored() as scored:
            result = super()._compute_loss(model, inputs, return_outputs)
        confidence, margin = self._at_their_places(scored, inputs["completion_mask"][:, 1:])
        terms = self._terms(confidence, margin, inputs["completion_mask"][:, 1:])
        loss, *outputs = result if return_outputs else (result,)
        loss = loss + self.args.calibration_weight * (terms["chosen"] + terms["rejected"])
        return (loss, *outputs) if return_outputs else loss

    @staticmethod
    def _at_their_places(scored: list, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the policy's projection found, the first of the step, as (B, T): it may have scored every position
        or those of the completions only."""
        mask = mask.bool()
        rows = scored[0]
        if len(rows[0]) == mask.sum():
            return tuple(row.new_zeros(mask.shape).masked_scatter(mask, row) for row in rows)
        return tuple(row.view(len(mask), -1)[:, -mask.shape[1] :] for row in rows)

    def _terms(self, confidence, margin, mask) -> dict[str, torch.Tensor]:
        mode = "train" if self.model.training else "eval"
        terms = {}
        # The batch is [chosen, rejected].
        parts = zip(confidence.chunk(2), margin.chunk(2), mask.chunk(2), strict=True)
        for (c, m, inside), side in zip(parts, ("chosen", "rejected"), strict=True):
            each = losses.catto(c, m, inside, side == "rejected", *self.args.calibration)
            terms[side] = each.mean()
            means = losses.response_mean(c, inside)
            for name, values in (("calibration", each), ("confidence", means)):
                gathered = self.accelerator.gather_for_metrics(values.detach())
                self._metrics[mode][f"{name}/{side}"].append(gathered.mean().item())
        return terms


@contextlib.contextmanager
def _scored():
    """Within it, trl's projection to the vocabulary also keeps each token's confidence and margin."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Scoring:
        @staticmethod
        def apply(hidden, weight, bias, labels, temperature, chunk_size, softcap, scale, outputs):
            logprobs, entropy, log_sum_sq, mean_logits, is_top1, *scores = _ScoredHead.apply(
                hidden, weight, bias, labels, softcap, scale / temperature, 1 / temperature
            )
            kept.append(tuple(scores))
            return logprobs, entropy, log_sum_sq, mean_logits, is_top1

    original = trl_utils._ChunkedLogProbFunction
    trl_utils._ChunkedLogProbFunction = Scoring
    try:
        yield kept
    finally:
        trl_utils._ChunkedLogProbFunction = original


class _ScoredHead(torch.autograd.Function):
    """Projection of hidden states to the vocabulary, reduced to what a step needs of every token.

    Of z = softcap(scale W h + b): log p(y), entropy, log sum p^2, mean logit, [y = argmax], c = max p, and the
    margin p(y) - max_{v != y} p(v). Gradients flow from log p(y), c and the margin. A tile of tokens at a time:
    logits are never held for all tokens at once, and the backward computes them again.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, softcap, scale, inv_t):
        ctx.set_materialize_grads(False)
        found = []
        for tile in _tiles(hidden, weight):
            z, _ = _logits(hidden[tile], weight, bias, softcap, scale, inv_t)
            log_z = z.logsumexp(dim=1)
            best = z.topk(2, dim=1)
            of_label = z.gather(1, labels[tile, None]).squeeze(1)
            first = best.indices[:, 0] == labels[tile]
            rival = torch.where(first, best.values[:, 1], best.values[:, 0])
            rival_at = torch.where(first, best.indices[:, 1], best.indices[:, 0])
            p = (z - log_z[:, None]).exp_()
            entropy = log_z - torch.einsum("tv,tv->t", p, z)
            log_sum_sq = torch.einsum("tv,tv->t", p, p).log()
            top_at, values = best.indices[:, 0], best.values[:, 0]
            found.append(
                (of_label, log_z, entropy, log_sum_sq, z.mean(dim=1), first, values, rival, top_at, rival_at)
            )
        of_label, log_z, entropy, log_sum_sq, mean, is_top1, top, rival, top_at, rival_at = map(
            torch.cat, zip(*found, strict=True)
        )
        logprobs, confidence = of_label - log_z, (top - log_z).exp()
        p_label, p_rival = logprobs.exp(), (rival - log_z).exp()
        ctx.save_for_backward(hidden, weight, bias, labels, log_z, confidence, p_label, p_rival, top_at, rival_at)
        ctx.shape = softcap, scale, inv_t
        ctx.mark_non_differentiable(entropy, log_sum_sq, mean, is_top1)
        return logprobs, entropy, log_sum_sq, mean, is_top1, confidence, p_label - p_rival

    @staticmethod
    def backward(ctx, d_logprob, _entropy, _sum_sq, _mean, _top1, d_confidence, d_margin):
        hidden, weight, bias, labels, log_z, confidence, p_label, p_rival, top_at, rival_at = ctx.saved_tensors
        softcap, scale, inv_t = ctx.shape
        nothing = torch.zeros_like(log_z)
        d_logprob, d_confidence, d_margin = (nothing if d is None else d for d in (d_logprob, d_confidence, d_margin))
        # d p_k / d z_v = p_k ([v = k] - p_v): each of the three adds at its own token and takes off everywhere.
        at_label = d_logprob + d_margin * p_label
        at_top, at_rival = d_confidence * confidence, -d_margin * p_rival
        everywhere = at_label + at_top + at_rival
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs_bias else None
        for tile in _tiles(hidden, weight):
            z, slope = _logits(hidden[tile], weight, bias, softcap, scale, inv_t)
            grad = z.sub_(log_z[tile, None]).exp_().mul_(-everywhere[tile, None])
            for where, amount in ((labels, at_label), (top_at, at_top), (rival_at, at_rival)):
                grad.scatter_add_(1, where[tile, None], amount[tile, None])
            grad = grad.mul_(scale if slope is None else slope.mul_(scale)).to(weight.dtype)
            if needs_hidden:
                d_hidden[tile] = (grad @ weight).to(hidden.dtype)
            if needs_weight:
                d_weight += (grad.T @ hidden[tile].to(grad.dtype)).float()
            if d_bias is not None:
                d_bias += grad.sum(dim=0, dtype=torch.float32)
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None


def _tiles(hidden: torch.Tensor, weight: torch.Tensor) -> list[slice]:
    size = max(1, _TILE // weight.shape[0])
    return [slice(start, start + size) for start in range(0, max(len(hidden), 1), size)]


def _logits(hidden, weight, bias, softcap, scale, inv_t) -> tuple[torch.Tensor, torch.Tensor | None]:
    """float32 logits (tokens, V), and the slope of the soft cap where there is one."""
    z = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
    if softcap is None:
        return z.mul_(scale), None
    bent = torch.tanh(z.mul_(scale / inv_t / softcap))
    return bent * (softcap * inv_t), 1 - bent * bent
