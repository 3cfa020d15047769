"""Plots: pictures of numbers that were computed before. No computing, no files but `save`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    curve: pd.DataFrame,
    smece: Estimate,
    title: str = "",
    ax=None,
    color="C0",
    xlabel: str = "semantic confidence",
    limit: float = 1.0,
):
    """Accuracy against confidence, smoothed, with its 95 % band and the density of confidence below.

    Parameters
    ----------
    curve : columns confidence, accuracy, low, high, density (`metrics.reliability_curve`).
    smece : the SmoothECE with its interval and n (`metrics.evaluate`).
    limit : where both axes end.

    Raises
    ------
    ValueError : a table without rows, as by the other plots.
    """
    _has_rows(curve, "reliability diagram")
    ax = plt.gca() if ax is None else ax
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", zorder=1)
    drawn = where_data_are(curve)
    ax.fill_between(drawn["confidence"], drawn["low"], drawn["high"], color=color, alpha=0.2, linewidth=0)
    ax.plot(drawn["confidence"], drawn["accuracy"], color=color, zorder=3)
    height = 0.16 * limit * curve["density"] / curve["density"].max()
    ax.fill_between(curve["confidence"], 0, height, color="0.5", alpha=0.35, linewidth=0, zorder=0)
    about = f"smECE {smece}\nnoise floor {smece.floor:.3f}, n = {smece.n}"
    ax.text(0.03, 0.97, about, transform=ax.transAxes, va="top", fontsize=9)
    ax.set(xlim=(0, limit), ylim=(0, limit), xlabel=xlabel, ylabel="accuracy", title=title)
    ax.set_aspect("equal")
    return ax


def where_data_are(curve: pd.DataFrame) -> pd.DataFrame:
    """The part of a reliability curve that is drawn: points with at least a twentieth of the highest density."""
    return curve[curve["density"] > curve["density"].max() / 20]


def binned_diagram(bins: pd.DataFrame, title: str = "", ax=None, color="C0", xlabel: str = "semantic confidence"):
    """Accuracy against confidence, a bar per bin (`metrics.binned_curve`); its dot stands at the mean confidence.

    The number of questions stands at the foot of every bar. The vertical line from dot to diagonal is the bin's gap.
    """
    _has_rows(bins, "binned diagram")
    ax = plt.gca() if ax is None else ax
    width = bins["high"] - bins["low"]
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", zorder=1)
    ax.bar(bins["low"], bins["accuracy"], width, align="edge", color=color, alpha=0.25, edgecolor="white")
    ax.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color="C1", linewidth=2, zorder=2)
    ax.plot(bins["confidence"], bins["accuracy"], "o", color=color, markersize=5, zorder=3)
    for middle, n in zip(bins["low"] + width / 2, bins["n"], strict=True):
        ax.text(middle, 0.015, f"{n}", ha="center", fontsize=8, color="0.3")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel="accuracy", title=title)
    ax.set_aspect("equal")
    return ax


def class_bars(classes: pd.DataFrame, title: str = "", ax=None, top: int = 8, longest: int = 26):
    """Shares of the classes of one question; the class of the reference answer has another colour.

    Parameters
    ----------
    classes : columns class, confidence, right, the most confident first.
    top : how many classes are drawn, those after them as one grey bar.
    longest : characters of a name.
    """
    _has_rows(classes, "classes")
    ax = plt.gca() if ax is None else ax
    shown, rest = classes.iloc[:top], classes.iloc[top:]
    names = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in shown["class"]]
    colors = np.where(shown["right"], "C2", "C1").tolist()
    shares = shown["confidence"].tolist()
    if len(rest):
        names.append(f"{len(rest)} other{'s' if len(rest) > 1 else ''}")
        colors.append("0.7")
        shares.append(rest["confidence"].sum())
    y = np.arange(len(names))
    ax.barh(y, shares, color=colors)
    for at, share in zip(y, shares, strict=True):
        ax.text(share + 0.015, at, f"{share:.2f}", va="center", fontsize=8)
    ax.set_yticks(y, names)
    ax.set(xlim=(0, 1.12), ylim=(max(len(names), 4) - 0.4, -0.6), xlabel="share of the draws", title=title)
    ax.legend(handles=[Patch(color="C2", label="right"), Patch(color="C1", label="wrong")], loc="lower right")
    return ax


def intervals(table: pd.DataFrame, label: str, xlabel: str, ax=None, color="C0", offset: float = 0.0, name=None):
    """Values with 95 % intervals, one row per line of `table` (columns `label`, value, low, high, n).

    A column floor, the noise floor of errors, is drawn as ticks.
    """
    _has_rows(table, "intervals")
    ax = plt.gca() if ax is None else ax
    y = np.arange(len(table)) + offset
    errors = [table["value"] - table["low"], table["high"] - table["value"]]
    ax.errorbar(table["value"], y, xerr=errors, fmt="o", color=color, markersize=4, elinewidth=1.4, label=name)
    names = [f"{_readable(row)}  (n = {n})" for row, n in zip(table[label], table["n"], strict=True)]
    ax.set_yticks(np.arange(len(table)), names)
    if _has_floor(table):
        ax.plot(table["floor"], y, "|", color=color, markersize=9, alpha=0.6)
        xlabel = f"{xlabel}\n(ticks: noise floor)"
    ax.set(xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=5)
    return ax


def lines(table: pd.DataFrame, x: str, group: str, xlabel: str, ylabel: str, title: str = "", ax=None, log=False):
    """Value against `x`, one line per `group`, with 95 % intervals (columns value, low, high).

    The lines are set apart sideways by a hair, so that intervals at the same `x` stay readable. There is a tick at
    every value of `x`, and a line at 0 where values change sign. With `log` the axis of `x` is logarithmic. A column
    floor, the noise floor of errors, is drawn dotted.
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
        if _has_floor(part):
            floor_of(ax, part[x], part["floor"], f"C{i}")
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


def facets(
    table: pd.DataFrame,
    labels: Mapping[str, str],
    group: str,
    x: str = "",
    xlabel: str = "",
    title: str = "",
    log=True,
):
    """A row of axes per metric of `labels` and a column per task of `table`: `lines` against `x`, one per `group`.

    Without `x`: `intervals`, one row per `group`. `table` has the columns metric, task, `group`, `x`, value, low,
    high, n, and floor of errors. `title` stands above the legend. Returns the figure.
    """
    _has_rows(table, "facets")
    tasks, (*_, last) = list(dict.fromkeys(table["task"])), labels
    figure, axes = grid(len(labels), len(tasks), width=3.1, height=2.7, sharex="row" if not x else True, sharey="row")
    for row, (metric, label) in zip(axes, labels.items(), strict=True):
        for ax, task in zip(row, tasks, strict=True):
            part = table[(table["metric"] == metric) & (table["task"] == task)]
            if x:
                lines(part, x, group, xlabel, label, ax=ax, log=log)
                ax.get_legend().remove()
            else:
                intervals(part.assign(n=""), group, label, ax)
                ax.set_yticks(range(len(part)), list(part[group]))
            ax.set_title(f"{task}, n = {part['n'].iloc[0]}" if metric == next(iter(labels)) else "")
            ax.set(
                xlabel=ax.get_xlabel() if not x or metric == last else "",
                ylabel=ax.get_ylabel() if task == tasks[0] else "",
            )
        if x:  # one range for all tasks
            found = table.loc[table["metric"] == metric, ["low", "high"]]
            least, most = min(found["low"].min(), 0.0), found["high"].max()
            row[0].set_ylim(least - 0.04 * (most - least) * (least < 0), most + 0.04 * (most - least))
    if x:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, title=title)
    else:
        figure.suptitle(title)
    return figure


def _has_floor(table: pd.DataFrame) -> bool:
    return "floor" in table and table["floor"].notna().any()


def floor_of(ax, x, floor, color) -> None:
    """The noise floor of errors at `x`, dotted; it is named once in the legend of `ax`."""
    named = "noise floor" in ax.get_legend_handles_labels()[1]
    ax.plot(x, floor, ":", color=color, linewidth=1, alpha=0.7, label=None if named else "noise floor")


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


_VERDICTS = {"reproduced": "C2", "partly": "C4", "refuted": "C1", "undecided": "0.35"}
_MARKERS = {"paper": "o", "extension": "s"}


def claims(table: pd.DataFrame, quantities: Mapping[str, str]):
    """Every claim with its interval: an axis for each kind of quantity, undecided claims below the decided ones.

    The side of the limit on which a claim lies is shaded. A thick grey line is the range of the paper's figures.

    Parameters
    ----------
    table : columns id, kind, notebook, quantity, side, limit, paper_low, paper_high, value, low, high, floor, n,
        verdict. Rows of earlier runs may lack the columns after notebook up to paper_high: they stand in an axis of
        their own.
    quantities : names of the quantities, in the order of the axes, and what they mean.

    Raises ValueError for a table without rows.
    """
    _has_rows(table, "claims")
    known = [name for name in quantities if (table["quantity"] == name).any()]
    others = sorted(set(table["quantity"]) - set(known))
    parts = [table[table["quantity"] == name] for name in [*known, *others]]
    heights = [len(part) + 3 for part in parts]
    figure, axes = plt.subplots(
        len(parts), 1, figsize=(8.5, 0.27 * sum(heights)), squeeze=False, layout="constrained", height_ratios=heights
    )
    for ax, name, part in zip(axes[:, 0], [*known, *others], parts, strict=True):
        _axis_of_claims(ax, part, quantities.get(name, name or "as the rule says (earlier runs)"))
    shown = [verdict for verdict in _VERDICTS if (table["verdict"] == verdict).any()]
    faces = {"undecided": "white"}
    handles = [
        Line2D([], [], color=_VERDICTS[verdict], marker="o", linestyle="", label=verdict, mfc=faces.get(verdict))
        for verdict in shown
    ]
    handles += [
        Line2D(
            [], [], color="0.3", marker=marker, linestyle="", label=f"of {kind}s" if kind == "paper" else f"{kind}s"
        )
        for kind, marker in _MARKERS.items()
        if (table["kind"] == kind).any()
    ]
    handles.append(Patch(color=_SIDE, label="the claim's own side"))
    if table["paper_low"].notna().any():
        handles.append(Line2D([], [], color="0.55", linewidth=4, label="the paper's figures"))
    if table["floor"].notna().any():
        handles.append(Line2D([], [], color="0.3", marker="|", linestyle="", label="noise floor"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


_SIDE = "#e8eef3"


def _axis_of_claims(ax, part: pd.DataFrame, name: str) -> None:
    open_ones = part["verdict"] == "undecided"
    rows = pd.concat([part[~open_ones], part[open_ones]])
    left, right = _reach(rows)
    for y, (_, row) in enumerate(rows.iterrows()):
        if row["side"] in ("above", "below"):
            end = right if row["side"] == "above" else left
            ax.barh(y, end - row["limit"], left=row["limit"], height=0.8, color=_SIDE, zorder=0)
            ax.plot([row["limit"]] * 2, [y - 0.4, y + 0.4], color="0.6", linewidth=1, zorder=1)
        if pd.notna(row["paper_low"]):
            width = 0.004 * (right - left)  # a single figure is seen too
            ends = row["paper_low"] - width, row["paper_high"] + width
            ax.plot(ends, [y + 0.25] * 2, color="0.55", linewidth=4, solid_capstyle="butt", zorder=1)
        color = _VERDICTS.get(row["verdict"], "C0")
        ax.plot(np.clip([row["low"], row["high"]], left, right), [y, y], color=color, linewidth=1.6)
        face = "white" if row["verdict"] == "undecided" else color
        marker = _MARKERS.get(row["kind"], "o")
        ax.plot(row["value"], y, marker, color=color, markerfacecolor=face, markersize=5)
        ax.plot(row["floor"], y, "|", color="0.3", markersize=9)
    decided = len(part) - int(open_ones.sum())
    if 0 < decided < len(part):
        ax.axhline(decided - 0.5, color="0.3", linewidth=0.8, linestyle=":")
    if decided < len(part):
        ax.text(1.01, decided, "undecided", transform=ax.get_yaxis_transform(), fontsize=8, va="center", color="0.35")
    ax.set_yticks(range(len(rows)), [f"{row.notebook[:2]} {row.id}  (n = {row.n:.0f})" for row in rows.itertuples()])
    ax.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.5), xlabel=name)


def _reach(rows: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis that shows all values, limits and figures of papers, and 0.

    Of an interval that is far longer than the others, as that of a share of nearly nothing, only a part is shown.
    """
    points = rows[["value", "limit", "paper_low", "paper_high", "floor"]].to_numpy(dtype=float)
    points = np.append(points[np.isfinite(points)], 0.0)
    widths = (rows["high"] - rows["low"]).replace(np.inf, np.nan)
    longest = 0.0 if widths.isna().all() else 2 * widths.median()
    ends = rows[["low", "high"]].to_numpy(dtype=float)
    ends = np.append(ends[np.isfinite(ends)], 0.0)
    left = max(min(ends.min(), points.min()), points.min() - longest)
    right = min(max(ends.max(), points.max()), points.max() + longest)
    space = 0.05 * (right - left) or 0.05
    return float(left - space), float(right + space)


def _readable(name: object) -> str:
    return _NAMES.get(name, str(name).replace("_", " "))
