"""Configuration: the parameters of a notebook run as one frozen, validated object."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calib_utils.home import ROOT

PROFILES = ("smoke", "cpu", "gpu")
Positive = Annotated[int, Field(ge=1)]
LearningRate = Annotated[float, Field(gt=0)]
Temperature = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Side = Literal["z", "1-z", "off"]
Form = Literal["l1", "l2", "bce"]


class ConfigError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range; the message names it."""


class FolderConfig(BaseModel):
    """Parameters every notebook has; a notebook with more of them derives a class from this one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    profile: Literal["smoke", "cpu", "gpu"]
    figures: str
    runs: str

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, object]):
        """The fields of this class out of a notebook's `globals()`, validated.

        Raises ConfigError naming every parameter that is missing or wrong.
        """
        given = {name: namespace[name] for name in cls.model_fields if name in namespace}
        try:
            return cls(**given)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e.get('input')!r})" for e in error.errors()
            )
            raise ConfigError(f"the parameters of this notebook are not usable: {wrong}") from error

    @property
    def figures_dir(self) -> Path:
        """Where figures and claims go; a relative path starts at the project's root."""
        return ROOT / self.figures

    @property
    def stages_dir(self) -> Path:
        """Where trained stages go: `python -m calib_utils` notebooks of one lineage share them."""
        return ROOT / self.runs / "stages"

    @property
    def records_dir(self) -> Path:
        """Where records go."""
        return ROOT / self.runs / "records"


class AskingConfig(FolderConfig):
    """Parameters of every notebook that asks models questions."""

    chat: bool
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    device: str
    dataset: str
    data_path: str
    n_questions: Positive
    n_shots: Annotated[int, Field(ge=0)]
    seed: int
    n_boot: Positive
    max_rows: Positive


class RunConfig(AskingConfig):
    """Parameters of every notebook that draws M answers of one model."""

    model: str
    n_samples: Positive


class SamplingStudy(RunConfig):
    """Parameters of notebook 01: the shared ones and the sensitivity studies.

    `m_values` are thinned from the M draws, so none may be larger than `n_samples`.
    """

    adapter: str
    backend: Literal["transformers", "vllm"]
    m_values: list[Positive]
    temperatures: list[Temperature]
    n_temperature: Positive
    n_ablation: Positive
    m_reference: Positive
    n_reference: Positive

    @model_validator(mode="after")
    def _budgets_are_drawn(self):
        if max(self.m_values, default=1) > self.n_samples:
            raise ValueError(f"m_values {self.m_values} go beyond n_samples = {self.n_samples}; lower them")
        return self


class PreferenceStudy(RunConfig):
    """Parameters that notebooks 02 and 04 share: SFT and DPO of one lineage, its settings chosen on dev.

    `held_out` names relations that no stage is trained on.
    """

    held_out: list[str]
    train_seeds: Annotated[list[int], Field(min_length=1)]
    lora_rank: Annotated[int, Field(ge=0)]
    sft_steps: Positive
    sft_questions: Positive
    sft_lr: LearningRate
    dpo_steps: Annotated[list[Positive], Field(min_length=1)]
    dpo_reported: Positive
    dpo_questions: Positive
    dpo_lr: LearningRate
    dpo_rejected: Literal["distractors", "samples"]
    dpo_beta: Annotated[float, Field(gt=0)]
    n_side: Positive

    @model_validator(mode="after")
    def _reported_strength_of_dpo_is_trained(self):
        _check_reported(self.dpo_steps, self.dpo_reported)
        return self


def _check_reported(steps: list[int], reported: int) -> None:
    if reported not in steps or steps != sorted(set(steps)):
        raise ValueError(f"{reported} steps are to be reported; the steps {steps} must rise and hold them")


class LineageStudy(PreferenceStudy):
    """Parameters of notebook 02: the other ways of tuning, and the released models."""

    other_lr: LearningRate
    other_steps: Positive
    beta_steps: Positive
    dpo_betas: list[Annotated[float, Field(gt=0)]]
    grpo_steps: Annotated[list[Positive], Field(min_length=1)]
    grpo_reported: Positive
    grpo_questions: Positive
    grpo_lr: LearningRate
    grpo_group: Annotated[int, Field(ge=2)]
    released_base: str
    released_aligned: str

    @model_validator(mode="after")
    def _other_strengths_are_trained(self):
        _check_reported(self.grpo_steps, self.grpo_reported)
        if self.beta_steps not in self.dpo_steps:
            raise ValueError(f"beta_steps is {self.beta_steps}; use one of dpo_steps {self.dpo_steps}")
        return self


class CattoStudy(PreferenceStudy):
    """Parameters of notebook 04: CATTO's choices, the methods beside it, and what is asked out-of-distribution."""

    sft_seeds: list[int]
    out_dataset: str
    task: str
    n_out: Positive
    n_task: Positive
    n_dev: Positive
    calibration_weight: Weight
    surrogate_temperature: Temperature
    surrogate_gradient: bool
    rejected_side: Side
    calibration_form: Form
    other_weights: list[Weight]
    other_temperatures: list[Temperature]
    other_sides: list[Side]
    other_forms: list[Form]
    sft_weight: Annotated[float, Field(gt=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    bce_weight: Weight
    cft_lr: LearningRate
    candidates: Annotated[list[Positive], Field(min_length=1)]

    @property
    def choices(self) -> dict:
        """The settings of `CATTOConfig` by name."""
        return {name: getattr(self, name) for name in self.ablation}

    @property
    def ablation(self) -> dict[str, list]:
        """Per setting of `CATTOConfig` the other values to try."""
        return {
            "calibration_weight": self.other_weights,
            "surrogate_temperature": self.other_temperatures,
            "surrogate_gradient": [not self.surrogate_gradient],
            "rejected_side": self.other_sides,
            "calibration_form": self.other_forms,
        }

    @model_validator(mode="after")
    def _candidates_are_drawn(self):
        if max(self.candidates) > self.n_samples:
            raise ValueError(f"candidates {self.candidates} go beyond n_samples = {self.n_samples}; lower them")
        return self

    @model_validator(mode="after")
    def _every_seed_has_a_start(self):
        if len(self.sft_seeds) != len(self.train_seeds):
            raise ValueError(f"sft_seeds {self.sft_seeds} must be as many as train_seeds {self.train_seeds}")
        return self


class RepairStudy(PreferenceStudy):
    """Parameters of notebook 05: the aligned model to repair, and how it is fine-tuned."""

    aligned: str
    out_dataset: str
    n_out: Positive
    n_dev: Positive
    cft_steps: Annotated[list[Positive], Field(min_length=1)]
    cft_reported: Positive
    cft_questions: Positive
    cft_lr: LearningRate
    rcft_weight: Annotated[float, Field(gt=0)]
    estimate_steps: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _reported_strength_of_cft_is_trained(self):
        _check_reported(self.cft_steps, self.cft_reported)
        return self


class ChainStudy(RunConfig):
    """Parameters of notebook 03: two families of questions with worked chains, training, and cutting chains."""

    elsewhere: str
    n_elsewhere: Positive
    sft_steps: Positive
    concise_steps: Positive
    max_steps: Positive
    few_steps: Positive
    n_few: Positive
    sft_questions: Annotated[int, Field(ge=3)]
    sft_lr: LearningRate
    lora_rank: Annotated[int, Field(ge=0)]
    max_new_tokens: Positive
    n_cut: Positive
    cut_samples: Positive
    fractions: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2)]


class LifecycleStudy(AskingConfig):
    """Parameters of notebook 06: a published series, or the family that is trained from scratch, and its tuning."""

    models: list[str]
    revisions: list[str]
    n_texts: Positive
    shapes: Annotated[list[Annotated[list[Positive], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    vocabulary: Annotated[int, Field(ge=260)]
    pretrain_questions: Positive
    pretrain_steps: Annotated[int, Field(ge=10)]
    pretrain_batch: Positive
    pretrain_lr: LearningRate
    tuned_model: int
    tuned_step: Annotated[int, Field(ge=0)]
    train_seeds: Annotated[list[int], Field(min_length=1)]
    sft_steps: Positive
    sft_lr: LearningRate
    lora_steps: Positive
    lora_lr: LearningRate
    lora_rank: Positive
    sft_questions: Positive
    narrow_relations: Positive
    dpo_steps: Positive
    dpo_lr: LearningRate
    grpo_steps: Annotated[int, Field(ge=0)]
    grpo_lr: LearningRate
    tuning_batch: Positive

    @model_validator(mode="after")
    def _a_model_is_tuned(self):
        n = len(self.models or self.shapes)
        if not -n <= self.tuned_model < n:
            raise ValueError(f"tuned_model is {self.tuned_model}; there are {n} models, counted from 0")
        return self


def profile_parameters(
    profile: str,
    notebook: str,
    folder: Path = ROOT / "notebooks" / "profiles",
    declared: Collection[str] | None = None,
) -> dict:
    """Parameters that a profile sets for a notebook: its section `common`, overridden by the notebook's own.

    Of `common` only what is `declared` counts, if that is given. Raises ConfigError for an unknown profile or a file
    that is not two levels of names.
    """
    path = folder / f"{profile}.yaml"
    if not path.is_file():
        raise ConfigError(f"profile {profile!r} is unknown; use one of {PROFILES}")
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(sections, dict) or not all(isinstance(v, dict | None) for v in sections.values()):
        raise ConfigError(f"{path} must hold sections ('common' or a notebook's name) of parameters")
    common = {n: v for n, v in (sections.get("common") or {}).items() if declared is None or n in declared}
    return {**common, **(sections.get(notebook) or {}), "profile": profile}
