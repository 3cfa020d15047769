"""Notebook 06 follows the family, or the series that its parameters name; the same numbers are taken of both."""

import numpy as np
import pandas as pd
import pytest

from calib_utils.claims import TASKS
from calib_utils.studies import LifecycleStudy
from calib_utils.studies.published import Series
from calib_utils.world.family.study import Study

SMALL = {"n_boot": 50, "n_questions": 20, "n_texts": 20, "train_seeds": [0], "shapes": [[16, 1], [32, 1]]}


def scores(condition, confidence):
    right = np.arange(40) % 2
    rows = {"panel": "series", "condition": condition, "strength": 1, "seed": 0, "confidence": confidence}
    ids = [f"q{i}" for i in range(40)]
    return pd.concat(
        [pd.DataFrame({**rows, "task": task, "question_id": ids, "entity": ids, "correct": right}) for task in TASKS]
    )


def test_members_are_the_family_unless_models_are_named(tmp_path):
    assert isinstance(LifecycleStudy(**SMALL, runs=str(tmp_path)).members(), Study)
    named = LifecycleStudy(**SMALL, models=["gemma-3-270m"], tuned_model=0, runs=str(tmp_path))
    assert isinstance(named.members(), Series)


def test_estimates_and_differences_take_the_resamples_of_the_parameters():
    run = LifecycleStudy(**SMALL)
    table = pd.concat([scores("bold", 0.9), scores("fair", 0.5)])
    found = run.estimates(table).set_index(["metric", "condition", "task"])["value"]
    assert set(run.labels) == set(found.index.get_level_values("metric"))
    assert found["overconfidence", "bold", TASKS[0]] == pytest.approx(0.4)
    pairs = {"claim": (("series", "bold", 1), ("series", "fair", 1))}
    ((mean, of_tasks),) = run.differences(table, pairs).values()
    assert mean.value == pytest.approx(0.4, abs=0.05) and set(of_tasks) == set(TASKS)
