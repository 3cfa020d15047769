"""Smooth calibration error: kernel-smoothed |E[confidence - correct]| at its own bandwidth, exactly and fast."""

from __future__ import annotations

import numpy as np
import relplot
from scipy.signal import fftconvolve
from scipy.sparse import csr_array

GRID = 1001  # relplot's grid for bandwidths of at least FINEST
FINEST = 0.01
_ROWS = 64  # resamples that are smoothed together on a finer grid


def smece(confidence, correct, weights, near: float | None = None):
    """SmoothECE (Blasiok & Nakkiran, 2023): kernel-smoothed |E[confidence - correct]| at its own bandwidth.

    The same number as `relplot.smECE`, the authors' code, for many resamples at once. `correct` may also be
    (B, n), one set of outcomes per row of `weights`. With `near`, a value known to 0.01 for all rows, the search
    looks only at bandwidths that are as near to it; the result is the same.
    """
    weights = np.asarray(weights, dtype=float)
    residual = np.broadcast_to(confidence - np.asarray(correct, dtype=float), weights.shape)
    at = to_grid(confidence, GRID)
    used = np.flatnonzero(at.sum(axis=0))  # most of the grid is empty
    sums, counts = (weights * residual) @ at[:, used], weights @ at[:, used]  # what the smoothing sees

    def smoothed(rows, sigma):
        if sigma < FINEST:
            return _smoothed_finely(confidence, residual[rows], weights[rows], sigma)
        smoother = smoother_matrix(sigma, used)
        mass = counts[rows] @ smoother.sum(axis=1) + 1e-4 * smoother.shape[1]
        return np.abs(sums[rows] @ smoother).sum(axis=1) / mass

    def each(sigmas, rows):
        values = np.empty(len(rows))
        if near is not None and (np.abs(sigmas - near) > 0.01).all():
            return np.full(len(rows), near)
        for sigma in np.unique(sigmas):
            same = sigmas == sigma
            values[same] = smoothed(rows[same], sigma)
        return values

    # The bandwidth is the fixed point sigma = smoothed ECE, by relplot's ten bisections from (0, 1].
    low, high = np.zeros(len(weights)), np.ones(len(weights))
    at_high = each(high, np.arange(len(weights)))
    searching = np.flatnonzero(at_high <= 1)
    for _ in range(10):
        middle = (low[searching] + high[searching]) / 2
        values = each(middle, searching)
        below = (middle < 0.001) | (middle < values)
        low[searching[below]] = middle[below]
        high[searching[~below]], at_high[searching[~below]] = middle[~below], values[~below]
    return at_high


def _smoothed_finely(confidence, residual, weights, sigma: float) -> np.ndarray:
    """(B,) smoothed errors at a bandwidth below the common grid's resolution, on relplot's finer one, by FFT."""
    size = round(20 / sigma) // 2 + 1
    kernel = relplot.kernels.ReflectedGaussianKernel(sigma).kernel_ev(size)[None]
    points = np.linspace(0, 1, round(10 / sigma))
    left = np.clip((points * (size - 1)).astype(int), 0, size - 2)
    part = points * (size - 1) - left
    at = to_grid(confidence, size)

    def total(values):  # of |the smoothed values| over the points
        reflected = np.concatenate([values[:, :0:-1], values, values[:, -2::-1]], axis=1)
        smooth = fftconvolve(reflected, kernel, "valid", axes=1)[:, size // 2 : size // 2 + size]
        return np.abs(smooth[:, left] * (1 - part) + smooth[:, left + 1] * part).sum(axis=1)

    found = []
    for start in range(0, len(weights), _ROWS):
        some = slice(start, start + _ROWS)
        found.append(total((weights[some] * residual[some]) @ at) / (total(weights[some] @ at) + 1e-4 * len(points)))
    return np.concatenate(found)


def to_grid(confidence, grid_size: int) -> csr_array:
    """(n, grid): how relplot rounds each confidence to its two neighbours."""
    left = np.clip((confidence * (grid_size - 1)).astype(int), 0, grid_size - 2)
    part = confidence * (grid_size - 1) - left
    shares, columns = np.concatenate([1 - part, part]), np.concatenate([left, left + 1])
    return csr_array((shares, (np.tile(np.arange(len(left)), 2), columns)), shape=(len(left), grid_size))


def smoother_matrix(sigma: float, used: np.ndarray, n_points: int | None = None) -> np.ndarray:
    """(used, points): reflected Gaussian smoothing of points of the grid, read at equally spaced points in [0, 1]."""
    last = GRID - 1
    reach = last // 2  # the kernel's support is half the grid on either side
    kernel = relplot.kernels.ReflectedGaussianKernel(sigma).kernel_ev(GRID)
    direct, reflected = np.zeros((2, 2 * last + 1))  # by source - target + last; by source + target
    direct[last - reach : last + reach + 1] = kernel
    reflected[: reach + 1], reflected[2 * last - reach :] = kernel[reach::-1], kernel[: reach - 1 : -1]
    points = np.linspace(0, 1, n_points or max(round(10 / sigma), relplot.config.smECE_mesh_pts))
    left = np.clip((points * last).astype(int), 0, last - 1)
    part = points * last - left
    lag, total = used[:, None] - left + last - 1, used[:, None] + left
    ends = (used == 0) | (used == last)  # these are their own reflection

    def smoothed_at(direct, reflected, share):
        found, twin = direct.take(lag, mode="clip"), reflected.take(total, mode="clip")
        twin[ends] = 0
        found += twin
        found *= share
        return found

    return smoothed_at(direct[1:], reflected[:-1], 1 - part) + smoothed_at(direct[:-1], reflected[1:], part)
