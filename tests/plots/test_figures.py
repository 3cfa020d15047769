"""Figures of several axes: every row in its panel, every group in the legend, and nothing from nothing."""

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pytest

from calib_utils import metrics, plots


def estimates(**columns):
    n = len(next(iter(columns.values())))
    value = np.linspace(0.2, 0.4, n)
    return pd.DataFrame({**columns, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 9})


def shown(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_every_model_has_its_reliability_diagram():
    rng = np.random.default_rng(0)
    f = rng.random(100)
    y = (rng.random(100) < f).astype(float)
    curves = metrics.stack({name: metrics.reliability_curve(f, y, 20) for name in "abc"}, "kind")
    errors = {name: metrics.evaluate(f, y, n_boot=20) for name in "abc"}
    figure = plots.reliability_grid(curves, errors, {"b": "second"}, columns=2, xlabel="top option")
    titles = [ax.get_title() or ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["a", "second", "c", ""] and figure.axes[0].get_xlabel() == "top option"
    drawn = curves[(curves["kind"] == "a") & (curves["density"] > curves["density"].max() / 20)]
    assert np.array_equal(figure.axes[0].lines[1].get_xydata(), drawn[["confidence", "accuracy"]])
    with pytest.raises(ValueError, match="no curves; leave the figure out"):
        plots.reliability_grid(curves, {})


def test_a_panel_for_every_metric_and_a_line_at_zero_for_signed_ones():
    table = estimates(model=["a", "b"] * 2, metric=["accuracy"] * 2 + ["overconfidence"] * 2)
    labels = {"accuracy": "accuracy", "overconfidence": "confidence minus accuracy"}
    first, second = plots.metric_panels(table, "model", labels).axes
    assert shown(first) == ["a  (n = 9)", "b  (n = 9)"] and second.get_xlabel() == "confidence minus accuracy"
    at_zero = [[line for line in ax.lines if list(line.get_xdata()) == [0, 0]] for ax in (first, second)]
    assert [len(found) for found in at_zero] == [0, 1]


def test_groups_stand_side_by_side_in_the_order_asked_for():
    table = estimates(model=["a", "b"] * 2, place=["in", "in", "out", "out"], metric=["accuracy"] * 4)
    about = {"order": ["b", "a"], "groups": {"in": "inside", "out": "outside"}, "group": "place"}
    figure = plots.metric_panels(table, "model", {"accuracy": "accuracy"}, **about)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["inside (n = 9)", "outside (n = 9)"]
    (ax,) = figure.axes
    assert shown(ax) == ["b", "a"]
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert list(points[0].get_xdata()) == pytest.approx(list(table["value"][[1, 0]]))
    assert points[0].get_ydata()[0] < 0 < points[1].get_ydata()[0]
    plain = plots.metric_panels(table, "model", {"accuracy": "accuracy"}, counted=False, **about)
    assert [text.get_text() for text in plain.legends[0].get_texts()] == ["inside", "outside"]


def test_every_table_has_its_panel_and_all_share_a_legend_where_that_is_asked():
    table = estimates(k=[1, 2] * 2, way=["x", "x", "y", "y"])
    figure = plots.line_panels({"one": table, "two": table}, "k", "way", "k", "accuracy", below=2)
    assert [ax.get_title() or ax.get_title(loc="left") for ax in figure.axes] == ["one", "two"]
    assert [ax.get_legend() for ax in figure.axes] == [None, None]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y"]
    own = plots.line_panels({"one": table, "two": table}, "k", "way", "k", "accuracy", columns=1)
    assert all(ax.get_legend() for ax in own.axes) and not own.legends


def test_right_and_wrong_answers_have_their_histograms():
    f, y = np.array([0.3, 0.6, 0.9, 0.95]), np.array([0.0, 1.0, 1.0, 0.0])
    table = metrics.stack({name: metrics.confidence_histogram(f, y, 0.25, 3) for name in "ab"}, "model")
    figure = plots.histogram_panels(table, "top option")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["right (n = 2)", "wrong (n = 2)"]
    assert len(figure.axes) == 2


def test_targets_are_drawn_beside_the_confidence_itself():
    c = [0.5, 0.75, 1.0]
    parts = [{"s": s, "token": kind, "confidence": c, "target": [0.5, 0.6, s]} for s in (0.1, 1.0) for kind in "ab"]
    figure = plots.surrogate_panels(pd.concat(map(pd.DataFrame, parts)))
    assert len(figure.axes) == 2
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[0.5, 0.6, 1.0]] * 2 + [c]


def test_regimes_show_the_path_with_its_steps_and_the_bound_of_the_same_questions():
    path = pd.DataFrame({"method": ["CFT"] * 2, "steps": [0, 10], "accuracy_tuned": [0.5, 0.8]})
    for place in ("tuned", "in"):
        values = {"value": [0.3, 0.2], "low": [0.2, 0.1], "high": [0.4, 0.3], "floor": [0.1, 0.1], "n": [9, 9]}
        path = path.assign(**{f"ece_{place}_{name}": found for name, found in values.items()})
    bounds = pd.DataFrame({"accuracy": [0.5, 1.0], "certain": [0.5, 0.0], "lower": [0.0, 0.2]})
    tuned, new = plots.regime_panels(path, bounds, 0.6).axes
    assert [text.get_text() for text in tuned.texts] == ["0", "10"] and new.get_title() == "test questions, n = 9"
    assert "certain of everything" in tuned.get_legend_handles_labels()[1]
    assert "certain of everything" not in new.get_legend_handles_labels()[1]
