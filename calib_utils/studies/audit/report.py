"""Report: an audit as one HTML file that needs nothing beside it, and as JSON. No torch."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from calib_utils import home, metrics, plots, storage
from calib_utils.metrics import METRICS as TABLE
from calib_utils.studies.audit.asking import Audit
from calib_utils.studies.audit.result import FOLDS, METRICS, Answered, Result, brief, difference_sentence, estimate_in
from calib_utils.types import Estimate

EXAMPLES = 5  # of each kind
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.45rem; line-height: 1.3; } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h1, h2, h3 { font-weight: 600; } h3 { font-size: 1rem; margin-bottom: 0.3rem; }
table { border-collapse: collapse; min-width: 34rem; margin: 0.8rem 0; font-size: 0.9rem; }
caption { text-align: left; font-style: italic; padding-bottom: 0.3rem; color: #444; }
th, td { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; height: auto; } pre { white-space: pre-wrap; background: #f5f5f5; padding: 0.8rem; }
tr.right td:first-child { font-weight: 600; } .note { color: #444; font-size: 0.9rem; }
"""


def write(audit: Audit, folder: str | Path) -> tuple[Path, Path]:
    """`report.html` and `audit.json` in `folder`, each whole or not at all; returns their paths.

    Raises WriteError for a folder that cannot be written.
    """
    page, numbers = Path(folder) / "report.html", Path(folder) / "audit.json"
    storage.publish(numbers, json.dumps(as_json(audit), indent=1, ensure_ascii=False) + "\n")
    storage.publish(page, as_html(audit))
    return page, numbers


def headline(audit: Audit) -> str:
    """The sentence of a single model, or what sets the others apart from the first."""
    if len(audit.results) == 1:
        return audit.results[0].verdict
    compared = list(dict.fromkeys(audit.differences["model"]))
    said = [difference_sentence(audit.differences, name) for name in compared]
    return ". ".join(said) or "; ".join(f"{one.name}: {one.verdict}" for one in audit.results)


def as_json(audit: Audit) -> dict:
    """Everything that the report shows, as plain values; numbers that are not there are null."""
    return _plain(
        {
            "headline": headline(audit),
            "data": audit.data,
            "code": home.of_code(),
            "results": [
                {
                    "name": one.name,
                    "verdict": one.verdict,
                    "about": dict(one.about),
                    "estimates": {name: asdict(value) for name, value in one.estimates.items()},
                    "temperature": one.temperature and asdict(one.temperature),
                    "groups": one.groups.to_dict("records"),
                    "questions": one.scores.to_dict("records"),
                }
                for one in audit.results
            ],
            "differences": audit.differences.to_dict("records"),
        }
    )


def _plain(value):
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_html(audit: Audit) -> str:
    """The page: verdict, and per model diagram, numbers, examples, groups and how it was asked."""
    title = _text(headline(audit))
    several = len(audit.results) > 1
    parts = [f"<h1>{title}</h1>"]
    if several and len(audit.differences):
        parts.append(_differences(audit.differences))
    for result in audit.results:
        if several:
            parts.append(f"<h2>{_text(result.name)}</h2><p>{_text(result.verdict)}.</p>")
        parts += _of_result(result)
    parts.append(_READING)
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _of_result(result: Result) -> list[str]:
    wrong_first = sorted(result.answered, key=lambda one: -one.shares[one.top])
    right = [one for one in wrong_first if one.top == one.right]
    wrong = [one for one in wrong_first if one.top != one.right]
    return [
        _figure(result),
        _numbers(result),
        _groups(result.groups),
        "<h3>Worst: wrong with the most confidence</h3>",
        *(map(_example, wrong[:EXAMPLES]) if wrong else ["<p>No answer is wrong.</p>"]),
        "<h3>Best: right with the most confidence</h3>",
        *(map(_example, right[:EXAMPLES]) if right else ["<p>No answer is right.</p>"]),
        _how(result.about),
    ]


def _figure(result: Result) -> str:
    """Reliability diagram, confidences of right and wrong answers, risk against coverage."""
    pair = result.scores["confidence"], result.scores["correct"]
    error, gap = result.estimates["smece"], result.estimates["overconfidence"]
    coverage = metrics.risk_coverage(*pair)
    with plt.style.context(plots.STYLE):
        figure, axes = plots.panels(3, 4.0, 4.0)
        plots.reliability_diagram(
            metrics.reliability_curve(*pair), error, "Reliability", axes[0], xlabel="confidence"
        )
        plots.confidence_histogram(
            metrics.confidence_histogram(*pair, n_bins=10), "Confidences", "confidence", axes[1]
        )
        axes[1].set(ylim=(0, 1.35 * axes[1].get_ylim()[1]), ylabel="share of its kind")  # room for the legend
        axes[1].tick_params(labelleft=True)
        axes[2].plot(coverage["coverage"], coverage["risk"], drawstyle="steps-post", marker=".")
        axes[2].set(
            xlim=(0, 1.02),
            ylim=(0, 1),
            xlabel="share of questions answered, surest first",
            ylabel="share of them wrong",
        )
        axes[2].set_title("Risk and coverage")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=130, metadata={"Software": None})
        plt.close(figure)
    half = coverage.iloc[(coverage["coverage"] - 0.5).abs().argmin()]
    right, wrong = int(pair[1].sum()), int((1 - pair[1]).sum())
    described = (
        f"Three panels about {result.name}. Reliability diagram: mean confidence minus accuracy is "
        f"{brief(gap, True)}, smECE {brief(error)}, n = {error.n}. Histogram of confidences of {right} "
        f"right and {wrong} wrong answers. "
        f"Risk and coverage: of the surest {half['coverage']:.0%} of the questions {half['risk']:.0%} are answered "
        f"wrongly, of all {wrong / (right + wrong):.0%}."
    )
    data = base64.b64encode(picture.getvalue()).decode()
    return f'<p><img src="data:image/png;base64,{data}" alt="{_text(described)}"></p>'


def _numbers(result: Result) -> str:
    rows = [[TABLE[name].label, *_cells(result.estimates[name])] for name in METRICS]
    if (found := result.temperature) is not None:
        rows.append([f"smECE at temperature {found.value:.2g}", *_cells(found.smece)])
        change = (f"{found.change.value:+.3f}", f"[{found.change.low:+.3f}, {found.change.high:+.3f}]", "", "")
        rows.append(["change by this temperature", *change])
    head = ["", "value", "95 % interval", "uncorrected", "a calibrated model reads up to"]
    return _table("Gaps and scores", head, rows)


def _cells(estimate: Estimate) -> tuple[str, ...]:
    plain = ["" if math.isnan(value) else f"{value:.3f}" for value in (estimate.plug_in, estimate.floor)]
    value = "" if math.isnan(estimate.value) else f"{estimate.value:.3f}"
    return value, f"[{estimate.low:.3f}, {estimate.high:.3f}]", *plain


def _groups(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    rows = []
    for name, part in table.groupby("group", sort=False):
        of = part.set_index("metric")
        cells = [brief(estimate_in(of.loc[metric])) for metric in of.index]
        rows.append([str(name), str(of["n"].iloc[0]), *cells])
    labels = [TABLE[name].label for name in dict.fromkeys(table["metric"])]
    return _table("Per group, the largest gap first", ["group", "questions", *labels], rows)


def _differences(table: pd.DataFrame) -> str:
    rows = [
        [row.model, TABLE[row.metric].label, f"{row.value:+.3f}", f"[{row.low:+.3f}, {row.high:+.3f}]"]
        for row in table.itertuples()
    ]
    caption = f"Less {table['against'].iloc[0]}, paired by question (n = {table['n'].iloc[0]})"
    return _table(caption, ["model", "", "difference", "95 % interval"], rows)


def _example(one: Answered) -> str:
    order = sorted(range(len(one.answers)), key=lambda i: -one.shares[i])[:4]
    if one.right is not None and one.right not in order:
        order.append(one.right)
    said = one.said or ("",) * len(one.answers)
    rows = []
    for i in order:
        cells = [f"{one.shares[i]:.2f}", one.answers[i], "yes" if i == one.right else "", said[i]]
        rows.append(cells[: 4 if one.said else 3])
    head = ["share", "answer", "right", "as it was said"][: 4 if one.said else 3]
    caption = f"{one.text} (right: {one.reference or 'not told'})"
    return _table(caption, head, rows, highlighted=[i == one.right for i in order])


def _how(about: Mapping[str, object]) -> str:
    prompt = about.get("first prompt")
    rows = [[name, json.dumps(value) if isinstance(value, dict) else value] for name, value in about.items()]
    shown = _table("What was asked, and how", ["", ""], [row for row in rows if row[0] != "first prompt"])
    if prompt is None:
        return shown
    return f"{shown}<details><summary>The first prompt</summary><pre>{_text(prompt)}</pre></details>"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence], highlighted: Sequence[bool] = ()) -> str:
    lines = []
    for row, mark in zip(rows, highlighted or [False] * len(rows), strict=True):
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in row)
        lines.append(f'<tr class="right">{cells}</tr>' if mark else f"<tr>{cells}</tr>")
    names = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    return f"<table><caption>{_text(caption)}</caption><tr>{names}</tr>\n" + "\n".join(lines) + "</table>"


def _text(value) -> str:
    return html.escape(str(value), quote=True)


_READING = f"""<h2>How to read this</h2><p class="note">
<i>Confidence</i>: the probability of the model's most probable answer; of free answers the share of its draws that
mean the same. <i>Overconfident</i>: mean confidence above accuracy. <i>smECE</i>: smoothed average gap between
confidence and accuracy, 0 is perfect; the value is corrected for sampling noise, beside it stand the uncorrected one
and what a calibrated model with these confidences would read at most in 95 of 100 samples. <i>ECE</i>: ten bins of
equal width, corrected too. <i>Temperature</i>: confidences are p<sub>k</sub><sup>1/T</sup>, renormalised; T is fitted
on all questions, its effect is measured in {FOLDS} folds, each with the T of the others. Intervals hold the truth in
95 of 100 samples of questions; they say nothing about questions of another kind.</p>"""
