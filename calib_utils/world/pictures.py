"""Pictures of notebook 07, made from its tables; no computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import ConnectionPatch

from calib_utils import plots
from calib_utils.world.mechanism import error_bound

_MARKERS = "osD^vP*X"


def drawing(texts: pd.DataFrame, classes: pd.DataFrame):
    """How it works, on one question: texts of the model, their collapse to meanings, and what preferences do to them.

    `texts` has text, class, probability; `classes` has class, truth, read, preferred and question
    (`study.Study.mechanism`), most probable first.
    """
    figure, axes = plots.panels(3, width=4.1, height=4.4)
    order = {name: i for i, name in enumerate(classes["class"])}
    colors = [f"C{order[name]}" for name in texts["class"]]
    at = np.arange(len(texts))
    axes[0].barh(at, texts["probability"], color=colors)
    axes[0].set_yticks(at, texts["text"])
    axes[0].set(title="1  texts: p(text | question)", xlabel="probability", ylim=(len(texts) - 0.4, -0.6))
    rows = np.arange(len(classes))
    names = [f"C{i}" if name in set(texts["class"]) else "0.6" for name, i in order.items()]
    axes[1].barh(rows, classes["read"], color=names, label="model that reads")
    axes[1].plot(classes["truth"], rows, "k|", markersize=16, markeredgewidth=2, label="truth")
    axes[1].set_yticks(rows, classes["class"])
    axes[1].set(title="2  meanings: collapse B", xlabel="probability", ylim=(len(rows) - 0.4, -0.6))
    axes[2].barh(rows, classes["preferred"], color=names, label="after preferences")
    axes[2].plot(classes["truth"], rows, "k|", markersize=16, markeredgewidth=2, label="truth")
    axes[2].set_yticks(rows, classes["class"])
    axes[2].set(title="3  tilt: preferences raise the top", xlabel="probability", ylim=(len(rows) - 0.4, -0.6))
    widest = max(classes[["truth", "read", "preferred"]].max())
    for ax in axes[1:]:
        ax.set_xlim(0, 1.08 * widest)
    axes[2].annotate(
        "",
        xy=(classes["preferred"].iloc[0], 0.5),
        xytext=(classes["read"].iloc[0], 0.5),
        arrowprops={"arrowstyle": "->", "linewidth": 1.6},
    )
    figure.get_layout_engine().set(wspace=0.12)
    for name, color in zip(dict.fromkeys(texts["class"]), dict.fromkeys(colors), strict=True):
        own = at[texts["class"] == name]
        axes[0].axhspan(own.min() - 0.45, own.max() + 0.45, color=color, alpha=0.08, linewidth=0)
        ends = {"xyA": (1.01, own.mean()), "coordsA": axes[0].get_yaxis_transform()}
        ends |= {"xyB": (-0.17, order[name]), "coordsB": axes[1].get_yaxis_transform()}
        figure.add_artist(ConnectionPatch(**ends, arrowstyle="->", color=color, linewidth=1.6))
    axes[1].legend(loc="lower right")
    axes[2].legend(loc="lower right")
    figure.suptitle(f'Question "{classes["question"].iloc[0]}": what is said, what is meant, what preferences change')
    return figure


def line_panels(table: pd.DataFrame, x: str, group: str, labels: Mapping[str, str], xlabel: str, log: bool = False):
    """A panel per metric of `table` (long form, `study.over_seeds`), values against `x`, one line per `group`."""
    figure, axes = plots.panels(len(labels), width=4.0, height=3.6)
    for ax, (metric, label) in zip(axes, labels.items(), strict=True):
        plots.lines(table[table["metric"] == metric], x, group, xlabel, label, ax=ax, log=log)
        ax.get_legend().remove()
    _legend_below(figure, axes[0], table)
    return figure


def interval_panels(table: pd.DataFrame, label: str, labels: Mapping[str, str], references: Sequence[str] = ()):
    """A panel per metric of `table` (long form), a row per value of `label`; lines at the values of `references`."""
    names = list(dict.fromkeys(table[label]))
    figure, axes = plots.panels(len(labels), width=3.4, height=0.34 * len(names) + 1.5, sharey=True)
    for ax, (metric, title) in zip(axes, labels.items(), strict=True):
        rows = table[table["metric"] == metric]
        plots.intervals(rows.assign(n=""), label, title, ax)
        for style, name in zip(("--", ":"), references, strict=False):
            ax.axvline(
                float(rows.loc[rows[label] == name, "value"].iloc[0]), color="0.6", linewidth=1, linestyle=style
            )
        if rows["low"].min() < 0 < rows["high"].max():
            ax.axvline(0, color="0.3", linewidth=0.8)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_title(_about(table))
    return figure


def gap_against_error(table: pd.DataFrame, group: str, title: str = "", annotate: str = ""):
    """Calibration error against loss gap, one colour per `group`, and the bound sqrt(gap / 2) above all points.

    Columns gap, error, and their ends gap_low, gap_high, error_low, error_high. Filled: overconfident (`signed` above
    0), open: underconfident. The axis of the gap is drawn as its root, on which the bound is straight. `annotate` is
    a column of names: points are numbered, and the names stand beside the figure.
    """
    figure, axes = plots.panels(1, width=12.0 if annotate else 8.6, height=5.6 if annotate else 5.0)
    ax, named = axes[0], []
    for i, (name, part) in enumerate(table.groupby(group, sort=False)):
        color, marker = f"C{i % 7}", _MARKERS[i % len(_MARKERS)]
        sides = [[part[c] - part[f"{c}_low"], part[f"{c}_high"] - part[c]] for c in ("error", "gap")]
        ax.errorbar(part["gap"], part["error"], *sides, fmt="none", color=color, alpha=0.35, linewidth=1)
        for over, face in ((True, color), (False, "white")):
            some = part[(part["signed"] > 0) == over]
            ax.plot(some["gap"], some["error"], marker, color=color, markerfacecolor=face, markersize=6)
        ax.plot([], [], marker, color=color, label=str(name))
        if annotate:
            for row in part.itertuples():
                named.append(f"{len(named) + 1}  {getattr(row, annotate)}")
                at = {"xy": (row.gap, row.error), "xytext": (4, 4), "textcoords": "offset points"}
                ax.annotate(str(len(named)), **at, fontsize=8, color=color)
    least, most = min(float(table["gap"].min()), 0.0), max(float(table["gap"].max()), 1e-3)
    points = np.linspace(0, np.sqrt(most), 200) ** 2
    ax.plot(points, error_bound(points), color="0.3", linestyle="--", label="bound: sqrt(gap / 2)")
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.set_xscale("function", functions=(_root, _square))
    ticks = [t for t in (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0) if t <= 1.1 * most]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    edge = _root(most) / 20  # intervals may go on beyond the picture, points do not
    ax.set_xlim(_square(_root(least) - edge), _square(_root(most) + edge))
    highest = max(float(table["error"].max()), float(error_bound(most)))
    ax.set(xlabel="loss gap (nats)", ylabel="calibration error (smECE)", title=title, ylim=(0, 1.08 * highest))
    filled = [plt.Line2D([], [], marker="o", color="0.3", linestyle="", markerfacecolor=f) for f in ("0.3", "white")]
    handles, names = ax.get_legend_handles_labels()
    names = [*names, "overconfident", "underconfident"]
    if named:
        ax.legend([*handles, *filled], names, loc="upper left", fontsize=8)
        blank = [plt.Line2D([], [], linestyle="")] * len(named)
        columns = 1 + (len(named) > 26)
        figure.legend(blank, named, loc="outside right upper", fontsize=8, handlelength=0, ncols=columns)
    else:
        figure.legend([*handles, *filled], names, loc="outside right upper")
    return figure


def known_tilts(points: pd.DataFrame, curve: pd.DataFrame):
    """Loss gap and calibration error of the exact predictor, tilted by t, as measured and as known.

    `points` has strength (t), gap and error with their ends (`study.points`); `curve` has t and gap, the closed form,
    whose bound stands over the error.
    """
    figure, axes = plots.panels(2, width=4.4, height=3.6)
    known = {
        "gap": (curve["gap"], "closed form: mean KL"),
        "error": (error_bound(curve["gap"]), "bound: sqrt(gap / 2)"),
    }
    names = {"gap": "loss gap (nats)", "error": "calibration error (smECE)"}
    for ax, (column, (line, label)) in zip(axes, known.items(), strict=True):
        ax.plot(curve["t"], line, color="0.3", linestyle="--", label=label)
        sides = [points[column] - points[f"{column}_low"], points[f"{column}_high"] - points[column]]
        ax.errorbar(points["strength"], points[column], sides, fmt="o", color="C0", label="measured")
        ax.set(xlabel="tilt t of the exact predictor", ylabel=names[column])
        ax.legend()
    figure.suptitle(f"means over {points['n'].iloc[0]} seeds: t < 0 is underconfident, t > 0 overconfident")
    return figure


def scatter(table: pd.DataFrame, x: str, y: str, group: str, xlabel: str, ylabel: str, note: str = ""):
    """Values `y` against `x` with their ends (x_low, ...), one colour per `group`; `note` is a column of labels."""
    figure, axes = plots.panels(1, width=8.2, height=4.8)
    for i, (name, part) in enumerate(table.groupby(group, sort=False)):
        sides = [[part[c] - part[f"{c}_low"], part[f"{c}_high"] - part[c]] for c in (y, x)]
        marker = _MARKERS[i % len(_MARKERS)]
        axes[0].errorbar(part[x], part[y], *sides, fmt=marker, color=f"C{i}", markersize=6, elinewidth=1, label=name)
        for row in part.to_dict("records") if note else ():
            axes[0].annotate(str(row[note]), (row[x], row[y]), (5, 4), textcoords="offset points", fontsize=8)
    edge = 0.06 * max(float(table[x].max()), 1e-6)  # intervals may go on beyond the picture, points do not
    axes[0].set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.15 * float(table[y].max())))
    axes[0].set_xlim(min(float(table[x].min()), 0.0) - edge, float(table[x].max()) + 3 * edge)
    figure.legend(loc="outside right upper", title=f"means over {table['n'].iloc[0]} seeds")
    return figure


def _legend_below(figure, ax, table: pd.DataFrame) -> None:
    handles, names = ax.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, title=_about(table))


def _about(table: pd.DataFrame) -> str:
    """What a mean and its interval are over."""
    asked = sorted(set(table.get("questions", [])))
    of = f" of {asked[0]:.0f}" + (f" to {asked[-1]:.0f}" if len(asked) > 1 else "") + " questions" if asked else ""
    return f"means over {table['n'].iloc[0]} seeds{of}, 95 % intervals"


def _root(x):
    return np.sign(x) * np.sqrt(np.abs(x))


def _square(x):
    return np.sign(x) * np.square(x)
