"""Probe: how easily a model learns to say its own distribution of answers before the first token (Claim 10).

A low-rank adapter on the model itself is trained to emit the class directly, q(. | x) close to B # p_x (arXiv
2511.04869). What is left is the KL gap, E[CE(B # p, q)] - E[H(B # p)].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from calib_utils.world.stack import Stack


def kl_gap(
    stack: Stack,
    ids: torch.Tensor,
    targets: np.ndarray,
    first_class: int,
    held_out: tuple[torch.Tensor, np.ndarray],
    seeds: Sequence[int],
    steps: int = 150,
    batch_size: int = 128,
    rank: int = 8,
    learning_rate: float = 5e-3,
) -> np.ndarray:
    """(S, n) KL divergence in nats of the class distribution from the probe's, on held-out questions.

    Parameters
    ----------
    ids, targets : (S, N, T) prompts and (S, N, classes) their B # p_x, which the probe is trained on.
    first_class : token id of the first class; the others follow. The probe's q is over the whole vocabulary.
    held_out : the same of other prompts.
    seeds : of the adapters and of the order of prompts, one per model.

    Raises ValueError for a rank below 1, or targets without mass.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; an adapter has at least 1")
    if not (targets.sum(axis=-1) > 0).all():
        raise ValueError("a target has no mass on any class; leave the question out")
    rngs = [np.random.default_rng([seed, 21]) for seed in seeds]
    down, up = {}, {}
    for name, weight in stack.weights.items():
        if name.endswith("proj.weight"):
            _, out, into = weight.shape
            starts = [rng.normal(0, into**-0.5, (rank, into)) for rng in rngs]
            down[name] = torch.from_numpy(np.stack(starts)).float().requires_grad_(True)
            up[name] = torch.zeros(len(stack), out, rank, requires_grad=True)
    optimiser = torch.optim.Adam([*down.values(), *up.values()], lr=learning_rate)
    wanted = torch.from_numpy(targets / targets.sum(axis=-1, keepdims=True)).float()
    rows = torch.arange(len(stack))[:, None]
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        at = torch.from_numpy(np.stack([rng.integers(ids.shape[1], size=batch_size) for rng in rngs]))
        adapted = stack.with_updates({name: up[name] @ down[name] for name in up})
        logq = _class_logprobs(adapted, ids[rows, at], first_class, wanted.shape[-1])
        loss = -(wanted[rows, at] * logq).sum(dim=-1).mean(dim=-1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        adapted = stack.with_updates({name: up[name] @ down[name] for name in up})
        logq = _class_logprobs(adapted, held_out[0], first_class, wanted.shape[-1]).double().numpy()
    p = held_out[1] / held_out[1].sum(axis=-1, keepdims=True)
    return (p * (np.log(np.maximum(p, 1e-300)) - logq)).sum(axis=-1)


def _class_logprobs(stack: Stack, ids: torch.Tensor, first: int, n: int) -> torch.Tensor:
    return stack.logits(ids, last=1)[:, :, 0].log_softmax(dim=-1)[..., first : first + n]
