from dataclasses import fields

import pytest
import torch
from pydantic import ValidationError

from calib_utils import CATTOConfig, losses
from calib_utils.config import (
    PROFILES,
    CattoStudy,
    ConfigError,
    LifecycleStudy,
    RunConfig,
    SamplingStudy,
    profile_parameters,
)

GOOD = dict(
    profile="cpu", model="m", adapter="", chat=False,
    dtype="auto", device="cpu", dataset="facts", data_path="", n_questions=4,
    n_samples=5, n_shots=0, seed=0, n_boot=10, max_rows=8, figures="figures", runs="runs",
)  # fmt: skip


def test_a_namespace_becomes_a_frozen_object():
    run = RunConfig.from_namespace({**GOOD, "something_else": object()})
    assert (run.n_questions, run.figures_dir.name, run.records_dir.parts[-2:]) == (4, "figures", ("runs", "records"))
    with pytest.raises(ValidationError):
        run.seed = 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"n_questions": "4"}, "n_questions"),
        ({"n_samples": 0}, "n_samples"),
        ({"profile": "laptop"}, "profile"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_wrong_types_and_ranges_name_the_parameter_and_the_value(wrong, message):
    with pytest.raises(ConfigError, match=f"{message}.*got {next(iter(wrong.values()))!r}"):
        RunConfig.from_namespace({**GOOD, **wrong})
    with pytest.raises(ConfigError, match="seed"):
        RunConfig.from_namespace({k: v for k, v in GOOD.items() if k != "seed"})
    with pytest.raises(ValidationError):
        RunConfig(**GOOD, n_question=3)


def test_budgets_beyond_the_draws_are_an_error():
    study = dict(
        backend="transformers", temperatures=[1.0], n_temperature=1, n_ablation=1, m_reference=5, n_reference=1
    )
    assert SamplingStudy.from_namespace({**GOOD, **study, "m_values": [2, 5]}).m_values == [2, 5]
    with pytest.raises(ConfigError, match=r"m_values \[5, 10\] go beyond n_samples = 5"):
        SamplingStudy.from_namespace({**GOOD, **study, "m_values": [5, 10]})


def test_profiles_override_common_by_notebook(tmp_path):
    (tmp_path / "cpu.yaml").write_text("common:\n  a: 1\n  b: 2\n01_x:\n  b: 3\n")
    assert profile_parameters("cpu", "01_x", tmp_path) == {"a": 1, "b": 3, "profile": "cpu"}
    assert profile_parameters("cpu", "02_y", tmp_path) == {"a": 1, "b": 2, "profile": "cpu"}
    assert profile_parameters("cpu", "02_y", tmp_path, declared=["b"]) == {"b": 2, "profile": "cpu"}
    (tmp_path / "gpu.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match="sections"):
        profile_parameters("gpu", "01_x", tmp_path)
    with pytest.raises(ConfigError, match="unknown"):
        profile_parameters("laptop", "01_x", tmp_path)


@pytest.mark.parametrize("profile", PROFILES)
def test_shipped_profiles_are_readable(profile):
    assert profile_parameters(profile, "01_base_semantic_calibration")["profile"] == profile


def test_choices_and_their_ablation():
    study = dict(
        held_out=[], train_seeds=[0], lora_rank=4, sft_steps=1, sft_questions=8, sft_lr=1e-3, dpo_steps=[1, 2],
        sft_seeds=[0],
        dpo_reported=2, dpo_questions=8, dpo_lr=1e-3, dpo_rejected="samples", dpo_beta=0.1, n_side=2, out_dataset="",
        task="", n_out=2, n_task=2, n_dev=2, calibration_weight=1.0, surrogate_temperature=1.0,
        surrogate_gradient=True, rejected_side="z", calibration_form="l1", other_weights=[3.0],
        other_temperatures=[], other_sides=["off"], other_forms=["l2"], sft_weight=1.0, label_smoothing=0.1,
        bce_weight=0.1, cft_lr=1e-3, candidates=[1, 5],
    )  # fmt: skip
    run = CattoStudy.from_namespace({**GOOD, **study})
    losses.catto(*torch.rand(3, 1, 1), True, *list(run.choices.values())[1:])  # in the order of its arguments
    assert set(run.choices) <= {field.name for field in fields(CATTOConfig)}
    assert run.ablation["surrogate_gradient"] == [False] and run.ablation["calibration_weight"] == [3.0]
    for wrong, message in (
        ({"candidates": [6]}, "candidates .* go beyond n_samples = 5"),
        ({"other_sides": ["y"]}, "other_sides"),
        ({"dpo_reported": 3}, "3 steps are to be reported"),
        ({"sft_seeds": [0, 1]}, r"sft_seeds \[0, 1\] must be as many as train_seeds"),
    ):
        with pytest.raises(ConfigError, match=message):
            CattoStudy.from_namespace({**GOOD, **study, **wrong})


def test_the_tuned_model_is_one_of_those_there():
    study = {name: 1 for name in LifecycleStudy.model_fields if name not in GOOD}
    study |= {"models": [], "revisions": [], "shapes": [[64, 2], [128, 3]], "vocabulary": 300, "pretrain_steps": 10}
    study |= {"train_seeds": [0], **{name: 1e-3 for name in study if name.endswith("_lr")}}
    run = LifecycleStudy.from_namespace({**GOOD, **study})
    assert run.tuned_model == 1
    for wrong in ({"tuned_model": 2}, {"models": ["m"]}, {"tuned_model": -3}):
        with pytest.raises(ConfigError, match=r"tuned_model is .*counted from 0"):
            LifecycleStudy.from_namespace({**GOOD, **study, **wrong})
    with pytest.raises(ConfigError, match="shapes"):
        LifecycleStudy.from_namespace({**GOOD, **study, "shapes": [[64]]})
