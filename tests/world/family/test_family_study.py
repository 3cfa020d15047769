"""The study of notebook 06: every claim has its two conditions, and tables are computed once."""

import pandas as pd
import pytest

from calib_utils.claims import CLAIMS
from calib_utils.studies import LifecycleStudy, lifecycle
from calib_utils.world.family import study

SMALL = {
    "shapes": [[16, 1], [32, 1]], "train_seeds": [0, 1], "pretrain_steps": 6, "kept_steps": [2], "pretrain_batch": 4,
    "n_questions": 20, "n_texts": 20, "epochs": [1, 2], "reported_epochs": 1, "sft_examples": 16, "rl_examples": 16,
    "rl_epochs": 1, "tuning_batch": 8, "memorised_rows": 8, "tuned_model": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = LifecycleStudy(**SMALL, runs=str(tmp_path_factory.mktemp("runs")))
    found = study.of(run)
    return run, found, found.scores()


def test_every_claim_has_two_conditions_that_were_measured(made):
    _, found, scores = made
    wanted = {name.removeprefix("lifecycle-") for name in CLAIMS if name.startswith("lifecycle-")}
    assert set(found.conditions()) == wanted
    for more, less in found.conditions().values():
        mean, of_tasks = lifecycle.differences(scores, more, less, n_boot=20)
        assert mean.low <= mean.value <= mean.high and None not in of_tasks.values()


def test_tables_are_computed_once_for_their_parameters(made, monkeypatch):
    run, _, scores = made
    monkeypatch.setattr(study, "pretrain", None)
    monkeypatch.setattr(study, "tune", None)
    pd.testing.assert_frame_equal(study.of(run).scores(), scores)
    with pytest.raises(TypeError):
        study.of(run.model_copy(update={"pretrain_lr": 1e-3})).scores("series")


def test_estimates_hold_every_condition_with_its_noise_floor(made):
    _, found, scores = made
    table = lifecycle.estimates(scores[scores["panel"] == "series"], 20)
    assert set(table["task"]) == set(found.tasks) and set(table["condition"]) == set(found.parameters)
    assert table.loc[table["metric"] == "ece_equal_width_10", "floor"].notna().all()
    assert list(found.diversity()["forms"]) == sorted(found.diversity()["forms"])
    assert found.parameters["16 x 1"] < found.parameters["32 x 1"] and len(found.text(2)) == 2
