"""Time left: what earlier runs took, the cell that is running, and what is said where nothing is known."""

import csv
import json

import pytest

from calib_utils.running import manifest, progress, runner
from calib_utils.running.progress import Forecast

NOTEBOOK = runner.find_notebooks(["01"])[0]


def executed(path, n_cells, done):
    """A copy that papermill is writing, `done` of whose cells have run."""
    about = [{"status": "completed", "duration": 1.0} if i < done else {"status": "pending"} for i in range(n_cells)]
    cells = [{"cell_type": "code", "metadata": {"papermill": one}, "source": ""} for one in about]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "metadata": {}}, *cells]}))
    return path


def test_the_time_of_the_last_run_is_what_is_left_of_it():
    assert Forecast(100.0).left(30.0) == 70.0
    assert Forecast().left(30.0) is None


def test_cells_tell_where_a_run_stands_and_its_pace_corrects_the_forecast(tmp_path):
    path, known = tmp_path / "a.ipynb", [1.0, 100.0, 20.0, 4.0]
    one = Forecast(125.0, cells=known, executed=path)
    assert one.left(50.0) == 125.0 - 50.0  # no copy yet
    executed(path, 4, 1)
    assert one.left(2.0) == pytest.approx(124.0)
    assert one.left(62.0) == pytest.approx(64.0)  # within the long cell, of which nothing is known but its start
    assert one.left(1000.0) == pytest.approx(24.0)
    executed(path, 4, 2)
    assert one.left(202.0) == pytest.approx(2 * 24.0)  # twice the time of the last run
    path.write_text('{"cells": [')  # half written
    assert one.left(212.0) == pytest.approx(2 * 24.0 - 10.0)


def test_without_an_earlier_run_the_share_of_cells_tells(tmp_path):
    one = Forecast(executed=executed(tmp_path / "a.ipynb", 10, 2))
    assert one.left(30.0) == pytest.approx(120.0)


def test_a_line_tells_the_time_left_and_whether_it_is_a_guess():
    running = {"01_a": (Forecast(100.0), 30.0)}
    assert progress.told(running, [Forecast(200.0)], 1) == "01_a 0:30 of 1:40; 1 waiting; 4:30 left"
    assert progress.told(running, [Forecast(200.0, True)], 1) == "01_a 0:30 of 1:40; 1 waiting; about 4:30 left"
    assert progress.told(running, [Forecast(), Forecast(200.0)], 2) == "01_a 0:30 of 1:40; 2 waiting; about 3:30 left"
    assert progress.told({"01_a": (Forecast(), 30.0)}, [], 1) == "01_a 0:30 of ?; 0 waiting; ? left"


def test_a_forecast_is_of_the_same_parameters_or_in_proportion_to_the_questions(tmp_path):
    parameters = {"n_questions": 34}
    plan = runner.Plan(runner.ANEW, 50.0, {})
    assert progress.forecast(NOTEBOOK, parameters, plan, tmp_path).seconds == 50.0
    about = {"seconds_anew": 400.0, "parameters": {"n_questions": 340}, "cells": [10.0, 20.0]}
    manifest.write(runner.manifest_path(NOTEBOOK, tmp_path), about)
    found = progress.forecast(NOTEBOOK, parameters, runner.Plan(runner.ANEW, None, {}), tmp_path)
    assert (found.seconds, found.guessed, found.cells) == (40.0, True, [1.0, 2.0])
    again = progress.forecast(NOTEBOOK, parameters, runner.Plan(runner.CACHED, 400.0, {"seconds": 9.0}), tmp_path)
    assert (again.seconds, again.guessed) == (9.0, False)
    first = progress.forecast(NOTEBOOK, parameters, runner.Plan(runner.CACHED, 400.0, {"seconds": 400.0}), tmp_path)
    assert first.seconds is None


def test_the_line_at_the_end_tells_time_verdicts_and_the_executed_copy(tmp_path):
    name, figures, out = NOTEBOOK.stem, tmp_path / "figures", tmp_path / "out"
    figures.mkdir(), out.mkdir()
    assert progress.outcome(name, 65.0, out, figures) == f"{name}: 1:05, no claims; {out / name}.ipynb"
    rows = [(name, "undecided"), (name, "reproduced"), (name, "reproduced"), ("02_rl_degradation", "refuted")]
    with (figures / "claims.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("notebook", "verdict"), *rows])
    told = progress.outcome(name, 65.0, out, figures)
    assert told == f"{name}: 1:05, 2 reproduced, 1 undecided; {out / name}.ipynb"
    assert progress.outcome(name, 5.0, out, figures, True) == f"{name}: failed after 0:05; nothing was executed"
    (out / f"{name}.failed.ipynb").touch()
    told = progress.outcome(name, 5.0, out, figures, True)
    assert told == f"{name}: failed after 0:05; {out / name}.failed.ipynb"
