"""The output layer in training: every token's projection to the vocabulary, reduced to what losses need of it."""

from __future__ import annotations

import torch

_TILE = 2**24  # logits held in float32 at once


class ScoredHead(torch.autograd.Function):
    """Projection of hidden states to the vocabulary, reduced to what a step needs of every token.

    Of z = softcap(scale W h + b): log p(y), entropy, log sum p^2, mean logit, [y = argmax], c = max p, and the
    margin p(y) - max_{v != y} p(v). Gradients flow from log p(y), c and the margin. A tile of tokens at a time:
    logits are never held for all tokens at once, and the backward computes them again.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, softcap, scale, inv_t):
        """Seven tensors (N,) for hidden (N, H), weight (V, H), bias (V,) or None, labels (N,)."""
        ctx.set_materialize_grads(False)
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        found = []
        for tile in _tiles(hidden, weight):
            z, _ = _logits(hidden[tile], weight, bias, dtype, softcap, scale, inv_t)
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
        ctx.shape = dtype, softcap, scale, inv_t
        ctx.mark_non_differentiable(entropy, log_sum_sq, mean, is_top1)
        return logprobs, entropy, log_sum_sq, mean, is_top1, confidence, p_label - p_rival

    @staticmethod
    def backward(ctx, d_logprob, _entropy, _sum_sq, _mean, _top1, d_confidence, d_margin):
        """Gradients of hidden, weight and bias, as far as they are asked for."""
        hidden, weight, bias, labels, log_z, confidence, p_label, p_rival, top_at, rival_at = ctx.saved_tensors
        dtype, softcap, scale, inv_t = ctx.shape
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
            z, slope = _logits(hidden[tile], weight, bias, dtype, softcap, scale, inv_t)
            grad = z.sub_(log_z[tile, None]).exp_().mul_(-everywhere[tile, None])
            for where, amount in ((labels, at_label), (top_at, at_top), (rival_at, at_rival)):
                grad.scatter_add_(1, where[tile, None], amount[tile, None])
            grad = grad.mul_(scale if slope is None else slope.mul_(scale)).to(dtype)
            if needs_hidden:
                d_hidden[tile] = (grad @ weight.to(dtype)).to(hidden.dtype)
            if needs_weight:
                d_weight += (grad.T @ hidden[tile].to(dtype)).float()
            if d_bias is not None:
                d_bias += grad.sum(dim=0, dtype=torch.float32)
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None


def _tiles(hidden: torch.Tensor, weight: torch.Tensor) -> list[slice]:
    size = max(1, _TILE // weight.shape[0])
    return [slice(start, start + size) for start in range(0, max(len(hidden), 1), size)]


def _logits(hidden, weight, bias, dtype, softcap, scale, inv_t) -> tuple[torch.Tensor, torch.Tensor | None]:
    """float32 logits (tokens, V), and the slope of the soft cap where there is one."""
    bias = None if bias is None else bias.to(dtype)
    z = torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), bias).float()
    if softcap is None:
        return z.mul_(scale), None
    bent = torch.tanh(z.mul_(scale / inv_t / softcap))
    return bent * (softcap * inv_t), 1 - bent * bent
