"""The methods of notebook 04: what they share, what differs, and what the term's target is."""

from dataclasses import replace

import numpy as np
import pytest

from calib_utils import semantics
from calib_utils.studies import CattoStudy
from calib_utils.types import Completion, Question, Record

RUN = CattoStudy(sft_weight=0.5, bce_weight=0.25)


def test_every_method_starts_from_the_same_model_and_sees_the_same_questions():
    methods = RUN.methods()
    assert list(methods) == ["SFT", "DPO", "DPO + SFT", "cDPO", "DPO + BCE", "CFT", "RCFT", "CATTO"]
    for stage in list(methods.values())[1:]:
        assert stage.parent == methods["SFT"] and (stage.first, stage.n_questions) == (1024, 480)
    assert methods["DPO + SFT"].settings["loss_weights"] == [1.0, 0.5]
    assert methods["DPO + BCE"].settings["calibration_weight"] == 0.25
    assert methods["CATTO"].settings["surrogate_temperature"] == RUN.surrogate_temperature


def test_an_ablation_changes_one_choice_at_a_time():
    catto, found = RUN.methods()["CATTO"], RUN.ablated()
    assert len(found) == sum(map(len, RUN.ablation.values()))
    for label, stage in found.items():
        name, value = label.split(": ")
        assert stage == replace(catto, options=stage.options)
        changed = {n for n, v in stage.settings.items() if v != catto.settings[n]}
        assert changed == {name.replace(" ", "_")} and str(stage.settings[changed.pop()]) == value


def test_seeds_start_from_the_sft_model_that_is_named():
    assert CattoStudy(train_seeds=[1, 2], sft_seeds=[0, 0]).starts == {1: 0, 2: 0}


def test_the_target_is_a_sigmoid_of_the_margin():
    table = RUN.surrogate_targets((1.0, 0.1))
    sign = table["token"].map({"first choice": 1, "second choice": -1})
    z = 1 / (1 + np.exp(-sign * (2 * table["confidence"] - 1) / table["s"]))
    assert table["target"].to_numpy() == pytest.approx(z.to_numpy(), abs=1e-5) and len(table) == 404


def test_the_baseline_is_the_first_that_was_trained():
    assert CattoStudy.baseline(["DPO", "DPO + BCE"]) == "DPO + BCE"
    assert CattoStudy.baseline(["DPO + BCE", "RCFT"]) == "RCFT"


def test_the_greedy_answer_stands_beside_the_kept_one_whatever_k():
    question = Question("q", "?", "red", "colour", "test", "")
    draws = tuple(Completion(text, (1,), n, -1.0, True, 0.5) for text, n in (("red", 3), ("blue", 5)))
    drawn = [Record(question, draws, (), {}, "")]
    greedy = [Record(question, (replace(draws[1], count=1),), (), {}, "")]
    run = CattoStudy(candidates=[1, 8])
    table = run.select({7: drawn}, {7: greedy}, semantics.exact)
    assert set(table["seed"]) == {7} and set(table["k"]) == {1, 8}
    kept = table.set_index(["strategy", "k"])["correct"]
    assert (kept["greedy", 1], kept["greedy", 8], kept["oracle", 8], kept["majority", 8]) == (0, 0, 1, 0)
