"""Figures: figures of several axes from one table each, as the notebooks repeat them. No computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from calib_utils.plots import diagrams
from calib_utils.types import Estimate

_SIGNED = ("overconfidence",)  # metrics with a line at 0


def reliability_grid(
    curves: pd.DataFrame,
    smece: Mapping[str, Estimate],
    titles: Mapping[str, str] | None = None,
    columns: int | None = None,
    width: float = 4.2,
    height: float = 4.4,
    xlabel: str = "semantic confidence",
    color: str = "C0",
    zoom: bool = False,
):
    """A reliability diagram for every model, by default side by side.

    Parameters
    ----------
    curves, smece : as `studies` return them: curves one below the other, the model's name in the first column, and
        the SmoothECE by name.
    titles : of the diagrams, where they are not the names.
    columns : diagrams in a row.
    zoom : axes end where the data do, for confidences that are all small.

    Raises ValueError for no curves, as by the other panels.
    """
    names = list(smece)
    if not names:
        raise ValueError("there is nothing to draw: no curves; leave the figure out")
    figure, axes = diagrams.grid(-(-len(names) // (columns or len(names))), columns or len(names), width, height)
    parts = {name: curves[curves[curves.columns[0]] == name] for name in names}
    reach = max(diagrams.where_data_are(part)[["confidence", "high"]].max().max() for part in parts.values())
    limit = min(1.0, 1.1 * reach) if zoom else 1.0
    for ax, (name, part) in zip(axes.flat, parts.items(), strict=False):
        diagrams.reliability_diagram(part, smece[name], (titles or {}).get(name, name), ax, color, xlabel, limit)
    return figure


def metric_panels(
    table: pd.DataFrame,
    label: str,
    metrics: Mapping[str, str],
    order: Sequence[str] | None = None,
    groups: Mapping[str, str] | None = None,
    group: str = "",
    width: float = 3.6,
    height: float | None = None,
    columns: int = 2,
    title: str | None = None,
    counted: bool = True,
):
    """A panel for every metric with a row per value of `label`: values with 95 % intervals (`intervals`).

    Parameters
    ----------
    table : long form, as of `metrics.compare`.
    metrics : metric -> label of its axis, in the order of the panels. Signed ones get a line at 0.
    order : the rows, from top to bottom, by default as in the table.
    groups : values of the column `group` -> their names in a legend below (of so many `columns`, with a `title`):
        several values in a row, one colour each.
    counted : whether the number of questions stands behind the name of each group.
    """
    order = list(dict.fromkeys(table[label])) if order is None else list(order)
    height = 0.4 * len(order) + (1.6 if groups else 1.2) if height is None else height
    figure, axes = diagrams.panels(len(metrics), width=width, height=height, sharey=True)
    for ax, (metric, name) in zip(axes, metrics.items(), strict=True):
        rows = table[table["metric"] == metric]
        for i, (value, legend) in enumerate((groups or {"": None}).items()):
            part = (rows[rows[group] == value] if groups else rows).set_index(label).loc[order].reset_index()
            shown = part.assign(n="") if groups else part
            said = f"{legend} (n = {part['n'].iloc[0]})" if groups and counted else legend
            diagrams.intervals(shown, label, name, ax, f"C{i}", _offset(i, len(groups or "1")), said)
        if metric in _SIGNED:
            ax.axvline(0, color="0.6", linewidth=1, linestyle="--", zorder=1)
    if groups:
        axes[0].set_yticks(range(len(order)), order)
        legend_below(figure, axes[0], columns, title)
    return figure


def _offset(i: int, n: int) -> float:
    """Where in its row the value of group i of n stands."""
    if n == 1:
        return 0.0
    return 0.25 * i - 0.12 if n == 2 else 0.2 * i - 0.1 * (n - 1)


def line_panels(
    tables: Mapping[str, pd.DataFrame],
    x: str,
    group: str,
    xlabel: str,
    ylabel: str,
    columns: int | None = None,
    width: float = 4.2,
    height: float = 4.4,
    log: bool = False,
    below: int = 0,
    **options,
):
    """A panel for every table, titled by its key: values against `x`, one line per `group` (`lines`).

    `below` puts one legend of so many columns below the figure, for all panels; else each panel has its own.
    """
    many = columns or len(tables)
    figure, axes = diagrams.grid(-(-len(tables) // many), many, width, height, **options)
    for ax, (title, table) in zip(axes.flat, tables.items(), strict=False):
        diagrams.lines(table, x, group, xlabel, ylabel, title, ax, log)
        if ax.dataLim.y1 > ax.get_ylim()[1]:  # a shared axis has the limits of the panel before
            ax.set_ylim(top=1.05 * ax.dataLim.y1)
        if below:
            ax.get_legend().remove()
    if below:
        legend_below(figure, axes[0, 0], below)
    return figure


def histogram_panels(table: pd.DataFrame, xlabel: str, width: float = 3.6, height: float = 3.6):
    """A histogram of the confidences of right and of wrong answers for every model (`confidence_histogram`).

    `table` holds the histograms one below the other, the model's name in the first column.
    """
    names = list(dict.fromkeys(table[table.columns[0]]))
    figure, axes = diagrams.panels(len(names), width=width, height=height, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        diagrams.confidence_histogram(table[table[table.columns[0]] == name], name, xlabel, ax)
    return figure


def surrogate_panels(table: pd.DataFrame):
    """CATTO's target against confidence, one panel per s (`studies.mixins.catto.CattoMethods.surrogate_targets`)."""
    sizes = list(dict.fromkeys(table["s"]))
    figure, axes = diagrams.panels(len(sizes), width=4.2, height=4.0, sharey=True)
    for ax, s in zip(axes, sizes, strict=True):
        part = table[table["s"] == s]
        for kind, line in part.groupby("token", sort=False):
            ax.plot(line["confidence"], line["target"], label=f"the token is the {kind}")
        c = line["confidence"]
        ax.plot(c, c, color="0.6", linewidth=1, linestyle="--", label="confidence")
        ax.set(xlabel="confidence c", ylabel="target z", title=f"s = {s:g}", ylim=(-0.02, 1.02))
        ax.label_outer()
    legend_below(figure, axes[0], 3)
    return figure


def regime_panels(path: pd.DataFrame, bounds: pd.DataFrame, critical: float):
    """ECE on tuned and on test questions against the accuracy on the tuned ones, with the bounds of the regimes.

    `path` has a row for every method and number of steps (`studies.mixins.repair.Repair.path`), `bounds` both bounds
    by accuracy (`studies.regimes.bounds`).
    """
    figure, axes = diagrams.panels(2, width=5.0, sharey=True)
    for ax, (place, where) in zip(axes, {"tuned": "tuned questions", "in": "test questions"}.items(), strict=True):
        for i, (method, part) in enumerate(path.groupby("method", sort=False)):
            x, value = part["accuracy_tuned"], part[f"ece_{place}_value"]
            errors = value - part[f"ece_{place}_low"], part[f"ece_{place}_high"] - value
            ax.errorbar(x, value, errors, fmt="o-", color=f"C{i}", capsize=2, label=method)
            for steps, *at in zip(part["steps"], x, value, strict=True):
                ax.annotate(f"{steps}", at, (4, 5), textcoords="offset points")
            diagrams.floor_of(ax, x, part[f"ece_{place}_floor"], f"C{i}")
        if place == "tuned":  # a bound by the accuracy on the same questions
            ax.plot(bounds["accuracy"], bounds["certain"], color="0.5", label="certain of everything")
        named = {"linestyle": "--", "label": "lower bound of the larger"}
        ax.plot(bounds["accuracy"], bounds["lower"], color="0.5", **named)
        ax.axvline(critical, color="0.5", linestyle=":", label="critical accuracy (SFT)")
        title = f"{where}, n = {path[f'ece_{place}_n'].iloc[0]}"
        ax.set(xlabel="accuracy on the tuned questions", ylabel="ECE", title=title)
    axes[0].legend()
    return figure


def legend_below(figure, ax, columns: int, title: str | None = None) -> None:
    """One legend for a figure, below it, of what `ax` shows."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, title=title)


def monitoring(table: pd.DataFrame):
    """What `training.CalibrationCallback` has logged along training, and the loss beside it.

    Columns: step, accuracy, confidence, smece, smece_floor, loss, n.

    Raises ValueError for a table without rows.
    """
    if table.empty:
        raise ValueError("there is nothing to draw: no measurements")
    figure, axes = diagrams.panels(2)
    for i, (name, label) in enumerate({"confidence": "confidence", "accuracy": "accuracy", "smece": "smECE"}.items()):
        axes[0].plot(table["step"], table[name], "o-", color=f"C{i}", markersize=4, label=label)
    diagrams.floor_of(axes[0], table["step"], table["smece_floor"], "C2")
    axes[0].set(xlabel="step", ylabel=f"dev questions, n = {table['n'].iloc[0]}", ylim=(0, 1))
    axes[0].legend()
    axes[1].plot(table["step"], table["loss"], "o-", color="C3", markersize=4)
    axes[1].set(xlabel="step", ylabel="DPO's loss", ylim=(0, None))
    return figure
