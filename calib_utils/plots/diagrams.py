"""Plots: pictures of numbers that were computed before. No computing, no files but `save`."""

from __future__ import annotations

from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from calib_utils.metrics import METRICS
from calib_utils.types import Estimate

_NAMES = {"smece": "smECE"}
STYLE = str(resources.files("calib_utils.plots") / "calib.mplstyle")


def use_style() -> None:
    """The house style for every figure that follows."""
    plt.style.use(STYLE)


def panels(n: int, width: float = 4.2, height: float = 4.4, **options):
    """A figure with `n` axes side by side; returns (figure, array of axes)."""
    figure, axes = grid(1, n, width, height, **options)
    return figure, axes[0]


def grid(rows: int, columns: int, width: float = 4.2, height: float = 4.4, **options):
    """A figure with rows of axes; returns (figure, (rows, columns) array of axes)."""
    size = (width * columns, height * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)


def reliability_diagram(
    curve: pd.DataFrame, smece: Estimate, title: str = "", ax=None, color="C0", xlabel: str = "semantic confidence"
):
    """Accuracy against confidence, smoothed, with its 95 % band and the density of confidence below.

    Parameters
    ----------
    curve : columns confidence, accuracy, low, high, density (`metrics.reliability_curve`).
    smece : the SmoothECE with its interval and n (`metrics.evaluate`).

    Raises
    ------
    ValueError : a table without rows, as by the other plots.
    """
    _has_rows(curve, "reliability diagram")
    ax = plt.gca() if ax is None else ax
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", zorder=1)
    # Where there is no data there is no curve: only points with a twentieth of the highest density are drawn.
    drawn = curve[curve["density"] > curve["density"].max() / 20]
    ax.fill_between(drawn["confidence"], drawn["low"], drawn["high"], color=color, alpha=0.2, linewidth=0)
    ax.plot(drawn["confidence"], drawn["accuracy"], color=color, zorder=3)
    height = 0.16 * curve["density"] / curve["density"].max()
    ax.fill_between(curve["confidence"], 0, height, color="0.5", alpha=0.35, linewidth=0, zorder=0)
    about = f"smECE {smece}\nnoise floor {smece.floor:.3f}, n = {smece.n}"
    ax.text(0.03, 0.97, about, transform=ax.transAxes, va="top", fontsize=9)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel="accuracy", title=title)
    ax.set_aspect("equal")
    return ax


def intervals(table: pd.DataFrame, label: str, xlabel: str, ax=None, color="C0", offset: float = 0.0, name=None):
    """Values with 95 % intervals, one row per line of `table` (columns `label`, value, low, high, n)."""
    _has_rows(table, "intervals")
    ax = plt.gca() if ax is None else ax
    y = np.arange(len(table)) + offset
    errors = [table["value"] - table["low"], table["high"] - table["value"]]
    ax.errorbar(table["value"], y, xerr=errors, fmt="o", color=color, markersize=4, elinewidth=1.4, label=name)
    names = [f"{_readable(row)}  (n = {n})" for row, n in zip(table[label], table["n"], strict=True)]
    ax.set_yticks(np.arange(len(table)), names)
    ax.set(xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=5)
    return ax


def lines(table: pd.DataFrame, x: str, group: str, xlabel: str, ylabel: str, title: str = "", ax=None, log=False):
    """Value against `x`, one line per `group`, with 95 % intervals (columns value, low, high).

    The lines are set apart sideways by a hair, so that intervals at the same `x` stay readable. There is a tick at
    every value of `x`, and a line at 0 where values change sign. With `log` the axis of `x` is logarithmic.
    """
    _has_rows(table, "lines")
    ax = plt.gca() if ax is None else ax
    step = 0.012 * (table[x].max() - table[x].min())
    apart = (table[x].max() / table[x].min()) ** 0.012 if log else None
    for i, (name, part) in enumerate(table.groupby(group, sort=False)):
        errors = [part["value"] - part["low"], part["high"] - part["value"]]
        ax.errorbar(
            part[x] * apart**i if log else part[x] + i * step,
            part["value"],
            yerr=errors,
            fmt="o-",
            color=f"C{i}",
            capsize=2,
            markersize=4,
            label=_readable(name),
        )
    values = sorted(table[x].unique())
    ax.set(xscale="log" if log else "linear", xlabel=xlabel, ylabel=ylabel, title=title)
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()
    if (table["low"] >= 0).all():
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0, color="0.6", linewidth=1, linestyle="--", zorder=1)
    ax.legend()
    return ax


def confidence_histogram(table: pd.DataFrame, title: str, xlabel: str, ax=None):
    """Shares of right and of wrong answers against confidence (`metrics.confidence_histogram`)."""
    _has_rows(table, "histogram")
    ax = plt.gca() if ax is None else ax
    edges = [*table["low"], table["high"].iloc[-1]]
    for name, color in (("right", "C0"), ("wrong", "C1")):
        label = f"{name} (n = {table['n_' + name].iloc[0]})"
        ax.stairs(table[name], edges, color=color, fill=True, alpha=0.25)
        ax.stairs(table[name], edges, color=color, linewidth=1.6, label=label)
    ax.set(xlim=(edges[0], 1), xlabel=xlabel, ylabel="share of its kind", title=title)
    ax.label_outer()
    ax.legend(loc="upper left")
    return ax


def _has_rows(table: pd.DataFrame, what: str) -> None:
    if table.empty:
        raise ValueError(f"there is nothing to draw: the table of the {what} has no rows; leave the plot out")


def coverage(table: pd.DataFrame):
    """Coverage of 95 % intervals (`coverage.simulate`): a point per cell; comparisons are panels."""
    kinds = list(dict.fromkeys(table["comparison"]))
    names, sizes = list(dict.fromkeys(table["quantity"])), sorted(set(table["n"]))
    rows = -(-len(kinds) // 4)
    figure, axes = grid(rows, -(-len(kinds) // rows), 3.2, 0.34 * len(names) + 1.1, sharex=True, sharey=True)
    for ax, kind in zip(axes.flat, kinds, strict=False):
        part = table[table["comparison"] == kind]
        for n, cells in part.groupby("n"):
            y = cells["quantity"].map(names.index) + 0.24 * (sizes.index(n) - (len(sizes) - 1) / 2)
            color = f"C{sizes.index(n)}"
            ax.plot(cells["coverage"], y, "o", color=color, markersize=3.5, alpha=0.6, label=f"n = {n}")
        ax.axvline(0.95, color="0.6", linewidth=1, zorder=1)
        ax.axvline(0.9, color="0.3", linewidth=1, linestyle="--", zorder=1)
        ax.set(title=kind, xlim=(min(0.85, table["coverage"].min() - 0.01), 1.005), ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(range(len(names)), [METRICS[name].label if name in METRICS else name for name in names])
        ax.label_outer()
    for ax in axes.flat[len(kinds) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("share of intervals that\nhold the true value")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _readable(name: object) -> str:
    return _NAMES.get(name, str(name).replace("_", " "))
