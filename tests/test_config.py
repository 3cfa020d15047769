from dataclasses import fields

import pytest
import torch
from pydantic import ValidationError

from calib_utils import CATTOConfig
from calib_utils.config import PROFILES, STAGED, profile_parameters
from calib_utils.errors import ConfigError
from calib_utils.home import ROOT
from calib_utils.studies.parameters import (
    STUDIES,
    CattoStudy,
    ChainStudy,
    ClaimsStudy,
    LifecycleStudy,
    LineageStudy,
    RepairStudy,
    RunConfig,
    SamplingStudy,
)
from calib_utils.training import losses

GOOD = dict(
    profile="cpu", model="gemma-3-270m", adapter="", chat=False,
    dtype="auto", device="cpu", dataset="facts", data_path="", n_questions=4,
    n_samples=5, n_shots=0, seed=0, n_boot=10, max_rows=8, figures="runs/figures", runs="runs",
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
    with pytest.raises(ValidationError):
        RunConfig(**GOOD, n_question=3)


def test_only_what_is_wrong_is_named():
    with pytest.raises(ConfigError) as found:
        SamplingStudy.checked({"n_samples": 5, "n_boot": 0, "seed": "0", "m_values": [5, 0]})
    assert str(found.value) == (
        "01_base_semantic_calibration: seed: Input should be a valid integer (got '0'); "
        "n_boot: Input should be greater than or equal to 1 (got 0); "
        "m_values.1: Input should be greater than or equal to 1 (got 0)"
        "; in YAML write numbers as 1.0e-4 and quote words such as 'no'"
    )
    with pytest.raises(ConfigError) as found:  # a check of several parameters
        SamplingStudy.checked({"n_samples": 5})
    assert str(found.value) == (
        "01_base_semantic_calibration: m_values [5, 10, 20, 50] go beyond n_samples = 5; lower them"
    )


@pytest.mark.parametrize(
    "study, given, message",
    [
        (RunConfig, {"dataset": "fact"}, r"data set 'fact' is unknown; did you mean 'facts'\? use one of \["),
        (RunConfig, {"dataset": "zzz"}, r"data set 'zzz' is unknown; use one of \['facts'"),
        (CattoStudy, {"out_dataset": "nq_opn"}, "did you mean 'nq_open'"),
        (CattoStudy, {"task": "facts"}, r"data set 'facts' has no worked chains; use one of \['arithmetic'"),
        (ChainStudy, {"elsewhere": "facts"}, r"data set 'facts' has no worked chains; use one of \['arithmetic'"),
        (
            RepairStudy,
            {"dataset": "triviaqa"},
            r"data set 'triviaqa' has no options; use one of \['facts', 'world', 'mmlu'",
        ),
        (RunConfig, {"model": "gema-3-270m"}, "'gema-3-270m' is no folder .* did you mean 'gemma-3-270m'"),
        (LifecycleStudy, {"models": ["a/b@step1", "./nowhere"]}, "models.1: './nowhere' is no folder"),
        (LineageStudy, {"released_base": "/no/such"}, "released_base: '/no/such' is no folder"),
        (SamplingStudy, {"adapter": "gemma-3-270m"}, "adapter: 'gemma-3-270m' is no folder .* or a hub id"),
        (SamplingStudy, {"backend": "vlm"}, "backend: Input should be 'transformers' or 'vllm'"),
        (RunConfig, {"device": "cdua:1"}, "there is no device 'cdua'; did you mean 'cuda'"),
        (LineageStudy, {"held_out": ["currenc"]}, "no relation 'currenc'; did you mean 'currency'"),
        (RunConfig, {"dataset": "nq_open", "data_path": "no.csv"}, "data_path is 'no.csv'; there is no file"),
        (RunConfig, {"data_path": "README.md"}, "data set 'facts' is built in and takes no file"),
    ],
)
def test_a_name_that_no_table_has_is_an_error_before_anything_starts(study, given, message):
    with pytest.raises(ConfigError, match=message) as found:
        study.checked(given)
    assert "\n" not in str(found.value)


def test_names_of_models_are_bundled_ones_folders_and_what_the_hub_may_hold(tmp_path):
    (tmp_path / "step10").mkdir()
    hub = ["Qwen/Qwen2.5-0.5B", "EleutherAI/pythia-70m@step1000"]
    for name in ("smollm2-135m-instruct", *hub, str(tmp_path), f"{tmp_path}@step10", "notebooks/profiles"):
        assert RunConfig.checked({"model": name}).model == name
    assert RunConfig.checked({"dataset": "openai/gsm8k", "data_path": "README.md"}).dataset == "openai/gsm8k"
    assert LineageStudy.checked({"held_out": ["currency"], "released_base": ""}).held_out == ["currency"]
    assert LineageStudy.checked({"dataset": "mmlu", "held_out": ["virology"]}).held_out == ["virology"]


CELL = 'profile: str = "cpu"  # help\nn_questions: int = 400  # help\nn_samples: int = 50  # help'
SMOKE = profile_parameters("smoke", "01_base_semantic_calibration")


def running(cells, **changed):
    """What a notebook sees whose cells `cells` have run."""
    namespace = {"something_else": object()}
    for cell in cells:
        exec(cell, namespace)
    return SamplingStudy.from_namespace({**namespace, **changed, "In": ["", *cells]})


def test_parameters_left_at_their_default_follow_the_profile():
    run = running([CELL.replace('"cpu"', '"smoke"')])
    assert {name: getattr(run, name) for name in SMOKE} == SMOKE and run.n_questions == 34
    assert running([CELL.replace('"cpu"', '"smoke"').replace("400", "20")]).n_questions == 20
    assert running([CELL]) == SamplingStudy()  # the defaults are the sizes of cpu


def test_what_papermill_injects_is_explicit_even_at_the_default():
    given = '# Parameters\nprofile = "smoke"\nn_questions = 408\n'
    run = running([CELL, given])
    assert (run.n_questions, run.n_samples, run.profile) == (408, SMOKE["n_samples"], "smoke")
    run = running([CELL, given, CELL, '# Parameters\nprofile = "smoke"\n'])  # the cells were run again
    assert run.n_questions == SMOKE["n_questions"]


@pytest.mark.parametrize(
    "cells",
    [
        [CELL, "# Parameters\nn_question = 34\n"],
        [CELL + "\nn_question: int = 34  # help"],
        [CELL.replace("n_questions: int", "n_question")],
    ],
)
def test_the_notebook_itself_refuses_a_name_that_its_class_does_not_have(cells):
    message = "01_base_semantic_calibration has no parameter 'n_question'; did you mean 'n_questions'?"
    with pytest.raises(ConfigError) as found:
        running(cells)
    assert str(found.value) == message


def test_cells_that_set_no_parameters_are_none_of_its_business():
    other = ["%matplotlib inline", "import os", "table: list = []", "# Parameters of the plot\nos.environ['A'] = 'b'"]
    namespace = {"profile": "cpu", "n_questions": 400}
    run = SamplingStudy.from_namespace(namespace, [CELL, *other])
    assert run == SamplingStudy()


def test_who_runs_decides_where_figures_go(monkeypatch):
    by_hand, given = ClaimsStudy(), ClaimsStudy(figures="runs/mine")
    assert by_hand.figures_dir == ROOT / "runs" / "interactive" / "08_claims" / "figures"
    assert (by_hand.claims_dir, given.claims_dir) == (ROOT / "figures", ROOT / "runs" / "mine")
    assert given.figures_dir == ROOT / "runs" / "mine"
    monkeypatch.setenv(STAGED, "/staged")  # by the runner, which publishes what succeeded
    assert str(given.figures_dir) == "/staged" and given.claims_dir == ROOT / "runs" / "mine"


def test_a_notebook_run_by_hand_does_not_write_where_a_manifest_describes_the_figures(tmp_path, monkeypatch):
    (tmp_path / "08_manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"figures is .*08_manifest\.json describes.*leave figures empty"):
        ClaimsStudy.from_namespace({"figures": str(tmp_path)})
    monkeypatch.setenv(STAGED, "/staged")
    assert ClaimsStudy.from_namespace({"figures": str(tmp_path)}).claims_dir == tmp_path


@pytest.mark.parametrize("notebook", STUDIES)
def test_every_class_is_usable_as_it_stands_and_in_every_profile(notebook):
    study = STUDIES[notebook]
    assert study.notebook() == notebook and study.checked({}) == study()
    for profile in PROFILES:
        run = study.from_namespace({"profile": profile})
        given = profile_parameters(profile, notebook, declared=study.model_fields)
        assert {name: getattr(run, name) for name in given} == given


def test_budgets_beyond_the_draws_are_an_error():
    study = {"backend": "transformers", "curated": "facts", "n_questions": 20, "n_curated": 20}
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
    study |= {"models": [], "revisions": [], "shapes": [[16, 1], [32, 1]], "pretrain_steps": 10, "kept_steps": [5]}
    study |= {"train_seeds": [0], "epochs": [1, 2], "kl_weights": [0.1], "dpo_beta": 0.1}
    study |= {name: 1e-3 for name in study if name.endswith("_lr")}
    run = LifecycleStudy.from_namespace({**GOOD, **study})
    assert run.tuned_model == 1
    for wrong in ({"tuned_model": 2}, {"models": ["a/m"]}, {"tuned_model": -3}):
        with pytest.raises(ConfigError, match=r"tuned_model is .*counted from 0"):
            LifecycleStudy.from_namespace({**GOOD, **study, **wrong})
    with pytest.raises(ConfigError, match="shapes"):
        LifecycleStudy.from_namespace({**GOOD, **study, "shapes": [[64]]})
    with pytest.raises(ConfigError, match=r"3 epochs are to be reported; the epochs \[1, 2\]"):
        LifecycleStudy.from_namespace({**GOOD, **study, "reported_epochs": 3})
