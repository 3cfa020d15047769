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


def test_intervals_and_lines_draw_every_row_with_its_n():
    table = pd.DataFrame(
        {"relation": ["a", "b"], "value": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.6], "n": [5, 7]}
    )
    ax = plots.intervals(table, "relation", "accuracy", plt.figure().add_subplot())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a  (n = 5)", "b  (n = 7)"]
    ax = plots.lines(table.assign(m=[5, 10]), "m", "relation", "M", "smECE", ax=plt.figure().add_subplot())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


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
        "histogram": lambda: plots.confidence_histogram(nothing, "", ""),
    }.items():
        with pytest.raises(ValueError) as caught:
            draw()
        assert str(caught.value) == (
            f"there is nothing to draw: the table of the {what} has no rows; leave the plot out"
        )


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        plots.use_style()
        figure, axes = plots.panels(2)
        curve, estimate = example()
        plots.reliability_diagram(curve, estimate, "a", axes[0])
        plots.save(figure, tmp_path / f"{name}.png", curve)
        plt.close(figure)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert np.allclose(pd.read_csv(tmp_path / "one.csv"), curve, rtol=1e-5)
