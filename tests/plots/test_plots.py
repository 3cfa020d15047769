import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from calib_utils import metrics, plots


def example():
    rng = np.random.default_rng(0)
    f = rng.random(200)
    y = (rng.random(200) < f).astype(float)
    return metrics.reliability_curve(f, y, 50), metrics.evaluate(f, y, n_boot=50)


def test_reliability_diagram_shows_the_numbers_it_was_given():
    curve, estimate = example()
    ax = plots.reliability_diagram(curve, estimate, "title", plt.figure().add_subplot())
    line = ax.lines[1].get_xydata()
    drawn = curve[curve["density"] > curve["density"].max() / 20]
    assert np.array_equal(line, drawn[["confidence", "accuracy"]])
    assert ax.texts[0].get_text() == f"smECE {estimate}\nnoise floor {estimate.floor:.3f}, n = 200"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left") or ax.get_title()) == (
        "semantic confidence",
        "accuracy",
        "title",
    )


def test_a_binned_diagram_has_a_bar_a_dot_and_a_gap_per_bin():
    bins = metrics.binned_curve([0.15, 0.12, 0.9, 1.0], [0, 1, 1, 1])
    ax = plots.binned_diagram(bins, "title", plt.figure().add_subplot())
    assert [(bar.get_x(), bar.get_height()) for bar in ax.patches] == [(0.1, 0.5), (0.8, 1.0), (0.9, 1.0)]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.135, 0.5], [0.9, 1.0], [1.0, 1.0]])
    assert [text.get_text() for text in ax.texts] == ["2", "1", "1"]


def test_class_bars_tell_right_from_wrong_and_count_the_rest():
    right = [False, True, False]
    classes = pd.DataFrame({"class": ["a" * 40, "b", "c"], "confidence": [0.5, 0.3, 0.2], "right": right})
    ax = plots.class_bars(classes, "title", plt.figure().add_subplot(), top=2, longest=10)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a" * 9 + "…", "b", "1 other"]
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.3, 0.2]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()


def test_intervals_and_lines_draw_every_row_with_its_n():
    table = pd.DataFrame(
        {"relation": ["a", "b"], "value": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.6], "n": [5, 7]}
    )
    ax = plots.intervals(table, "relation", "accuracy", plt.figure().add_subplot())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a  (n = 5)", "b  (n = 7)"]
    ax = plots.lines(table.assign(m=[5, 10]), "m", "relation", "M", "smECE", ax=plt.figure().add_subplot())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_noise_floors_stand_beside_errors():
    table = pd.DataFrame(
        {"m": [5, 10], "value": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.6], "n": 5, "floor": [0.15, 0.11]}
    ).assign(who=["a", "b"])
    ax = plots.intervals(table, "who", "smECE", plt.figure().add_subplot())
    assert list(ax.lines[-1].get_xdata()) == [0.15, 0.11] and ax.get_xlabel() == "smECE\n(ticks: noise floor)"
    ax = plots.lines(table, "m", "who", "M", "smECE", ax=plt.figure().add_subplot())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["noise floor", "a", "b"]
    assert [list(line.get_ydata()) for line in ax.lines if line.get_linestyle() == ":"] == [[0.15], [0.11]]
    without = plots.intervals(table.assign(floor=np.nan), "who", "accuracy", plt.figure().add_subplot())
    assert without.get_xlabel() == "accuracy"


def claim(name, quantity, verdict, **other):
    row = {"id": name, "kind": "paper", "notebook": "02_x", "quantity": quantity, "side": "above", "limit": 0.0}
    row |= {
        "paper_low": np.nan,
        "paper_high": np.nan,
        "value": 0.1,
        "low": 0.05,
        "high": 0.2,
        "floor": np.nan,
        "n": 9,
    }
    return row | {"verdict": verdict} | other


def test_claims_have_an_axis_per_quantity_their_own_side_and_the_paper_beside():
    table = pd.DataFrame(
        [
            claim("open", "gap", "undecided", low=-0.1),
            claim("shown", "gap", "reproduced"),
            claim("low", "error", "refuted", side="below", limit=0.05, floor=0.04, kind="extension"),
            claim("much", "share", "partly", low=-np.inf, value=np.nan, paper_low=0.3, paper_high=0.6),
            claim("earlier", "", "not reproduced", side="", limit=np.nan, kind=""),
        ]
    )
    figure = plots.claims(table, {"error": "the error", "gap": "the gap", "share": "the share", "none": "nothing"})
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "the error", "the gap", "the share", "as the rule says (earlier runs)"
    ]  # fmt: skip
    error, gap, share, earlier = figure.axes
    assert [label.get_text() for label in gap.get_yticklabels()] == ["02 shown  (n = 9)", "02 open  (n = 9)"]
    (note,) = gap.texts
    assert (note.get_text(), note.get_position()[1]) == ("undecided", 1) and not error.texts
    (side,) = error.patches  # all below 0.05
    assert side.get_x() + side.get_width() == error.get_xlim()[0] and side.get_x() == 0.05
    assert [patch.get_x() for patch in gap.patches] == [0.0, 0.0] and not earlier.patches
    (paper,) = [line for line in share.lines if line.get_linewidth() == 4]
    assert paper.get_xdata() == pytest.approx([0.3, 0.6], abs=0.01)
    assert min(share.lines[2].get_xdata()) == share.get_xlim()[0]  # an interval without an end runs to the edge
    assert [list(line.get_xdata()) for line in error.lines if line.get_marker() == "|"] == [[0.04]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:6] == ["reproduced", "partly", "refuted", "undecided", "of papers", "extensions"]
    assert names[6:] == ["the claim's own side", "the paper's figures", "noise floor"]


def test_the_histogram_shows_both_kinds_with_their_numbers():
    table = metrics.confidence_histogram([0.3, 0.9, 0.95, 0.5], [0, 1, 1, 1], 0.25, 3)
    ax = plots.confidence_histogram(table, "title", "top", plt.figure().add_subplot())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right (n = 3)", "wrong (n = 1)"]
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    assert [list(patch.get_data().values) for patch in outlines] == [list(table["right"]), list(table["wrong"])]


def test_a_plot_of_nothing_says_so():
    nothing = pd.DataFrame(columns=["x", "group", "confidence", "density", "value", "low", "high", "n"])
    _, estimate = example()
    for what, draw in {
        "reliability diagram": lambda: plots.reliability_diagram(nothing, estimate),
        "intervals": lambda: plots.intervals(nothing, "group", ""),
        "lines": lambda: plots.lines(nothing, "x", "group", "", ""),
        "binned diagram": lambda: plots.binned_diagram(nothing),
        "classes": lambda: plots.class_bars(nothing),
        "histogram": lambda: plots.confidence_histogram(nothing, "", ""),
        "claims": lambda: plots.claims(nothing, {}),
    }.items():
        with pytest.raises(ValueError) as caught:
            draw()
        assert str(caught.value) == (
            f"there is nothing to draw: the table of the {what} has no rows; leave the plot out"
        )


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        with plt.rc_context():
            plots.use_style()
            figure, axes = plots.panels(2)
            curve, estimate = example()
            plots.reliability_diagram(curve, estimate, "a", axes[0])
            plots.save(figure, tmp_path / f"{name}.png", curve)
            plt.close(figure)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert np.allclose(pd.read_csv(tmp_path / "one.csv"), curve, rtol=1e-5)


def test_facets_have_a_row_per_metric_a_column_per_task_and_one_range_per_row():
    rows = [
        {
            "metric": m,
            "task": t,
            "model": g,
            "step": s,
            "value": v,
            "low": v - 0.1,
            "high": v + 0.1,
            "n": 9,
            "floor": f,
        }
        for m, v, f in (("ece", 0.2, 0.05), ("gap", 0.0, float("nan")))
        for t in ("a", "b", "c")
        for g in ("x", "y")
        for s in (1, 10)
    ]
    table, labels = pd.DataFrame(rows), {"ece": "ECE", "gap": "gap"}
    figure = plots.facets(table, labels, "model", "step", "steps", "two seeds")
    assert [ax.get_title() for ax in figure.axes] == ["a, n = 9", "b, n = 9", "c, n = 9", "", "", ""]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "", "steps", "steps", "steps"]
    assert all(ax.get_ylim() == pytest.approx((0.0, 0.312)) for ax in figure.axes[:3])
    assert figure.axes[4].get_ylim()[0] < -0.1
    figure = plots.facets(table[table["step"] == 1], labels, "model")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x", "y"]
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.facets(table[:0], labels, "model")


def test_panels_that_share_an_axis_cut_no_line_off():
    low = pd.DataFrame({"k": [1, 2], "name": "a", "value": [0.2, 0.3], "low": [0.1, 0.2], "high": [0.3, 0.4], "n": 9})
    high = low.assign(value=[0.7, 0.8], low=[0.6, 0.7], high=[0.8, 0.9])
    figure = plots.line_panels({"low": low, "high": high}, "k", "name", "k", "accuracy", sharey=True)
    bottom, top = figure.axes[0].get_ylim()
    assert (bottom, figure.axes[1].get_ylim()) == (0, (bottom, top)) and top > 0.9
