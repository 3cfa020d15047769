"""The repairs of notebook 05: their window, what they start from, and the path along training."""

import numpy as np
import pandas as pd
import pytest

from calib_utils.studies import RepairStudy, regimes


def scores(confidence, right, n=40):
    correct = np.arange(n) < right * n
    return pd.DataFrame({"question_id": range(n), "confidence": confidence, "correct": correct.astype(float)})


def test_repairs_train_on_questions_that_no_stage_before_has_seen():
    run = RepairStudy()
    repairs = run.repairs()
    for stage in repairs.values():
        assert stage.parent == run.dpo and stage.first == run.dpo.first + run.dpo.n_questions
    assert repairs["CFT"].settings == {} and repairs["RCFT"].settings["calibration_weight"] == run.rcft_weight
    tuned = run.places()["tuned"]
    assert tuned == run.train_questions()[run.first : run.first + run.cft_questions]


def test_an_aligned_model_has_no_lineage():
    run = RepairStudy(aligned="mine/own", train_seeds=[1, 2])
    assert run.start == "aligned" and run.first == 0 and run.repairs()["CFT"].parent is None
    assert list(run.before(fit=None)) == [("aligned", 1), ("aligned", 2)]


def test_the_lineages_own_start_is_dpo_after_the_reported_step():
    run, asked = RepairStudy(train_seeds=[4]), []

    class Done:
        def __init__(self, stage):
            self.stage = stage

        def load(self, step=None):
            asked.append((self.stage.method, self.stage.seed, step))

    before = run.before(Done)
    for load in before.values():
        load()
    assert list(before) == [("SFT", 4), ("DPO", 4)]
    assert asked == [("sft", 4, None), ("dpo", 4, run.dpo_reported)]


def test_the_path_begins_at_the_start_and_knows_its_regime():
    run = RepairStudy(n_boot=20)
    seeds = {
        ("tuned", "DPO"): [scores(0.9, 0.5)],
        ("tuned", "CFT"): [scores(0.9, 0.9)],
        ("in", "DPO"): [scores(0.9, 0.5)],
        ("in", "CFT"): [scores(0.9, 0.6)],
    }
    path = run.path(seeds, {("CFT", 10): "CFT"}, critical=0.6)
    assert list(path["steps"]) == [0, 10] and list(path["model"]) == ["DPO", "CFT"]
    assert list(path["accuracy_tuned"]) == pytest.approx([0.5, 0.9])
    assert list(path["calibratable"]) == [True, False] and list(path["bound"]) == pytest.approx([0, 0.15])
    assert list(path["ece_in_plug_in"]) == pytest.approx([0.4, 0.3]) and path["ece_tuned_plug_in"][1] < 1e-9


def test_the_bounds_are_those_of_the_regimes():
    table = RepairStudy.bounds(0.5, 0.75)
    assert table.equals(regimes.bounds(0.5, 0.75))
    last = table.iloc[-1]
    assert (last["accuracy"], last["certain"], last["lower"]) == pytest.approx((1, 0, 0.125))
