"""Drawing: counts split over the vocabulary, exactly, from logits and uniform numbers. Nothing here knows a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

_BLOCK = 512  # vocabulary block of the two-level inverse CDF
SLICE = 8  # rows whose probabilities are held in float32 at once (8 rows of 262,144 stay near the cache)


class NotFiniteError(ValueError):
    """A row of logits holds NaN or infinity; `row` is its number."""

    def __init__(self, row: int) -> None:
        """`row` as in the logits that were given."""
        super().__init__(f"the logits of row {row} are NaN or infinite")
        self.row = row


def check_finite(rows: torch.Tensor, first: int = 0) -> None:
    """Raise NotFiniteError for the first row (n, V) that is not finite; rows are numbered from `first`."""
    bad = torch.nonzero(~rows.sum(dim=1).isfinite())  # one NaN or infinity spoils the sum
    if len(bad):
        raise NotFiniteError(first + int(bad[0]))


def uniforms(seed: int, path: Sequence[int], tokens: Sequence[int], count: int) -> np.ndarray:
    """(count,) uniform numbers: a function of the seed, a prompt's token ids and the tokens drawn after it."""
    digest = hashlib.blake2b(np.array([seed, *path, -1, *tokens], dtype=np.int64).tobytes(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(count)


def split_counts(
    logits: torch.Tensor, counts: Sequence[int], temperature: float, uniforms_of: Callable[[int], np.ndarray]
) -> Iterator[tuple[int, int, int, float, float]]:
    """Split every row's count over the vocabulary: what that many draws from softmax(logits / T) would give.

    Inverse CDF in two levels: blocks of the vocabulary are summed once per row, and only the blocks that a
    draw falls in are accumulated.

    Parameters
    ----------
    logits : (n, V).
    counts : (n,) draws per row.
    temperature : T >= 0; 0 gives every count to the most probable token.
    uniforms_of : the uniform numbers of a row, one per draw.

    Yields (row, token, count, log-probability, max_v p(v)) per distinct token. Raises NotFiniteError.
    """
    greedy = temperature == 0
    scale = 1.0 if greedy else 1.0 / temperature
    n_blocks = -(-logits.shape[1] // _BLOCK)
    buffer = torch.zeros(min(SLICE, len(counts)), n_blocks * _BLOCK, device=logits.device)
    for start in range(0, len(counts), SLICE):
        part = logits[start : start + SLICE]
        p = buffer[: len(part)]
        head = p[:, : logits.shape[1]]
        head.copy_(part)
        best = head.argmax(dim=1).tolist() if greedy else []
        check_finite(head, start)
        head.sub_(head.amax(dim=1, keepdim=True)).mul_(scale).exp_()
        blocks = p.view(len(part), n_blocks, _BLOCK)
        cumulative = blocks.sum(dim=2).double().cumsum(dim=1).cpu().numpy()
        totals = cumulative[:, -1]
        if greedy:
            for i, token in enumerate(best):
                yield start + i, token, counts[start + i], -float(np.log(totals[i])), 1 / float(totals[i])
            continue
        where, rest = [], []
        for i in range(len(part)):
            target = uniforms_of(start + i) * totals[i]
            block = np.searchsorted(cumulative[i], target, side="right").clip(max=n_blocks - 1)
            where.append(np.stack([np.full_like(block, i), block]))
            rest.append(target - np.where(block > 0, cumulative[i][block - 1], 0.0))
        rows, block = np.concatenate(where, axis=1)
        inside = blocks[torch.from_numpy(rows), torch.from_numpy(block)].double().cpu().numpy()
        within = (inside.cumsum(axis=1) <= np.concatenate(rest)[:, None]).sum(axis=1)
        # Rounding may push a draw past the last possible token of its block: step back to it.
        last = _BLOCK - 1 - (inside[:, ::-1] > 0).argmax(axis=1)
        within = np.minimum(within, last)
        chances = np.log(inside[np.arange(len(within)), within] / totals[rows])
        draws = np.stack([rows, block * _BLOCK + within])
        distinct, first, times = np.unique(draws, axis=1, return_index=True, return_counts=True)
        for (row, token), at, count in zip(distinct.T, first, times, strict=True):
            # The largest term of every sum is exp(0), so that the top probability is one over the sum.
            yield start + int(row), int(token), int(count), float(chances[at]), 1 / float(totals[row])
