"""Parameters: what each notebook can be given, with type, range and default (those of profile ``cpu``)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from calib_utils.config import FolderConfig

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Halved = Annotated[int, Field(ge=20)]  # questions that a loss gap reads in two halves
Seeds = Annotated[list[int], Field(min_length=1)]
LearningRate = Annotated[float, Field(gt=0)]
Temperature = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Side = Literal["z", "1-z", "off"]
Form = Literal["l1", "l2", "bce"]


class ClaimsStudy(FolderConfig):
    """Parameters of notebook 08, which reads what the others wrote."""

    NOTEBOOK: ClassVar[str] = "08_claims"


class AskingConfig(FolderConfig):
    """Parameters of every notebook that asks models questions."""

    chat: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: str = "auto"
    dataset: str = "facts"
    data_path: str = ""
    n_questions: Positive = 408
    n_shots: Count = 10
    seed: int = 0
    n_boot: Positive = 1000
    max_rows: Positive = 128


class RunConfig(AskingConfig):
    """Parameters of every notebook that draws M answers of one model."""

    model: str = "gemma-3-270m"
    n_samples: Positive = 50


class SamplingStudy(RunConfig):
    """Parameters of notebook 01: public questions, and selected facts asked beside them.

    `n_used` questions of the facts are left out, as in `PreferenceStudy`. `m_values` are thinned from the M draws, so
    none may be larger than `n_samples`.
    """

    NOTEBOOK: ClassVar[str] = "01_base_semantic_calibration"

    adapter: str = ""
    backend: Literal["transformers", "vllm"] = "transformers"
    dataset: str = "natural_questions"
    curated: str = "facts"
    n_questions: Halved = 240
    n_curated: Halved = 255
    n_used: Count = 408
    m_values: list[Positive] = [5, 10, 20, 50]

    @model_validator(mode="after")
    def _budgets_are_drawn(self):
        if max(self.m_values, default=1) > self.n_samples:
            raise ValueError(f"m_values {self.m_values} go beyond n_samples = {self.n_samples}; lower them")
        return self


class PreferenceStudy(RunConfig):
    """Parameters that notebooks 02 and 04 share: SFT and DPO of one lineage, its settings chosen on dev.

    `held_out` names relations that no stage is trained on. `n_used` test questions are left out: earlier runs
    reported on them, and what was looked at does not decide.
    """

    held_out: list[str] = ["currency", "country_of_currency", "element_symbol", "element_of_symbol"]
    train_seeds: Seeds = [3, 4, 5]
    n_used: Count = 408
    lora_rank: Count = 16
    sft_steps: Positive = 128
    sft_questions: Positive = 1024
    sft_lr: LearningRate = 6e-4
    dpo_steps: Annotated[list[Positive], Field(min_length=1)] = [10, 20]
    dpo_reported: Positive = 20
    dpo_questions: Positive = 480
    dpo_lr: LearningRate = 8.5e-5
    dpo_rejected: Literal["minority", "distractors", "samples"] = "minority"
    dpo_beta: Annotated[float, Field(gt=0)] = 0.1
    n_side: Positive = 102

    @model_validator(mode="after")
    def _reported_strength_of_dpo_is_trained(self):
        _check_reported(self.dpo_steps, self.dpo_reported)
        return self


def _check_reported(steps: list[int], reported: int) -> None:
    if reported not in steps or steps != sorted(set(steps)):
        raise ValueError(f"{reported} steps are to be reported; the steps {steps} must rise and hold them")


class LineageStudy(PreferenceStudy):
    """Parameters of notebook 02: GRPO, and the released models."""

    NOTEBOOK: ClassVar[str] = "02_rl_degradation"

    n_questions: Positive = 300
    grpo_steps: Annotated[list[Positive], Field(min_length=1)] = [12, 24]
    grpo_reported: Positive = 24
    grpo_questions: Positive = 480
    grpo_lr: LearningRate = 5e-5
    grpo_group: Annotated[int, Field(ge=2)] = 8
    released_base: str = ""
    released_aligned: str = "smollm2-135m-instruct"

    @model_validator(mode="after")
    def _reported_strength_of_grpo_is_trained(self):
        _check_reported(self.grpo_steps, self.grpo_reported)
        return self


class CattoStudy(PreferenceStudy):
    """Parameters of notebook 04: CATTO's choices, the methods beside it, and what is asked out-of-distribution."""

    NOTEBOOK: ClassVar[str] = "04_catto"

    n_questions: Positive = 204
    n_side: Positive = 204
    sft_seeds: list[int] = [3, 4, 5]
    out_dataset: str = ""
    task: str = "arithmetic"
    n_out: Positive = 142
    n_task: Positive = 24
    n_dev: Positive = 102
    calibration_weight: Weight = 1.0
    surrogate_temperature: Temperature = 0.3
    surrogate_gradient: bool = True
    rejected_side: Side = "z"
    calibration_form: Form = "l1"
    other_weights: list[Weight] = [0.3]
    other_temperatures: list[Temperature] = [0.1, 1.0]
    other_sides: list[Side] = ["off"]
    other_forms: list[Form] = ["l2"]
    sft_weight: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    bce_weight: Weight = 0.03
    cft_lr: LearningRate = 2e-4
    candidates: Annotated[list[Positive], Field(min_length=1)] = [1, 2, 4, 8, 16, 32]

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

    NOTEBOOK: ClassVar[str] = "05_calibration_aware"

    n_questions: Positive = 204
    aligned: str = ""
    out_dataset: str = ""
    n_out: Positive = 142
    n_dev: Positive = 204
    cft_steps: Annotated[list[Positive], Field(min_length=1)] = [10, 20, 40]
    cft_reported: Positive = 10
    cft_questions: Positive = 160
    cft_lr: LearningRate = 2e-4
    rcft_weight: Annotated[float, Field(gt=0)] = 1.0
    estimate_steps: Count = 0

    @model_validator(mode="after")
    def _reported_strength_of_cft_is_trained(self):
        _check_reported(self.cft_steps, self.cft_reported)
        return self


class ChainStudy(RunConfig):
    """Parameters of notebook 03: two families of questions with worked chains, training, and cutting chains.

    `n_used` test questions of the data set are left out: earlier runs reported on them. `known` are the relations
    that composed questions may use; the base model knows facts of them, by the dev split.
    """

    NOTEBOOK: ClassVar[str] = "03_cot_degradation"

    dataset: str = "arithmetic"
    n_questions: Positive = 400
    n_used: Count = 100
    n_samples: Positive = 20
    n_shots: Count = 8
    elsewhere: str = "multihop"
    known: list[str] = ["country_of_capital", "continent", "currency", "language"]
    n_elsewhere: Positive = 100
    sft_steps: Positive = 112
    concise_steps: Positive = 48
    max_steps: Positive = 4
    few_steps: Positive = 1
    n_few: Positive = 200
    sft_questions: Annotated[int, Field(ge=3)] = 900
    sft_lr: LearningRate = 6e-4
    lora_rank: Count = 16
    max_new_tokens: Positive = 64
    n_cut: Positive = 40
    cut_samples: Positive = 20
    fractions: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2)] = [0.0, 0.25, 0.5, 0.75, 1.0]


class LifecycleStudy(AskingConfig):
    """Parameters of notebook 06: a published series, or the family that is trained from scratch, and its tuning."""

    NOTEBOOK: ClassVar[str] = "06_lifecycle"

    n_questions: Positive = 240
    n_shots: Count = 0
    models: list[str] = []
    revisions: list[str] = []
    n_texts: Positive = 500
    shapes: Annotated[list[Annotated[list[Positive], Field(min_length=2, max_length=2)]], Field(min_length=1)] = [
        [64, 2],
        [128, 3],
        [192, 4],
        [224, 6],
    ]
    vocabulary: Annotated[int, Field(ge=260)] = 1024
    pretrain_questions: Positive = 500
    pretrain_steps: Annotated[int, Field(ge=10)] = 420
    pretrain_batch: Positive = 12
    pretrain_lr: LearningRate = 1.5e-3
    tuned_model: int = 2
    tuned_step: Count = 0
    train_seeds: Seeds = [0, 1, 2]
    sft_steps: Positive = 40
    sft_lr: LearningRate = 3e-4
    lora_steps: Positive = 80
    lora_lr: LearningRate = 2e-3
    lora_rank: Positive = 16
    sft_questions: Positive = 240
    narrow_relations: Positive = 1
    dpo_steps: Positive = 20
    dpo_lr: LearningRate = 1e-4
    grpo_steps: Count = 20
    grpo_lr: LearningRate = 1e-4
    tuning_batch: Positive = 16

    @model_validator(mode="after")
    def _a_model_is_tuned(self):
        n = len(self.models or self.shapes)
        if not -n <= self.tuned_model < n:
            raise ValueError(f"tuned_model is {self.tuned_model}; there are {n} models, counted from 0")
        return self


class WorldStudy(FolderConfig):
    """Parameters of notebook 07: the exact world, what is trained in it and how strongly, and what is measured."""

    NOTEBOOK: ClassVar[str] = "07_mechanism"

    train_seeds: Annotated[list[int], Field(min_length=2)] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    n_questions: Annotated[int, Field(ge=40)] = 600
    n_answers: Positive = 8
    n_forms: Positive = 5
    n_syllables: Positive = 20
    ambiguity: Annotated[float, Field(gt=0)] = 1.0
    shifts: list[Annotated[float, Field(ge=0, le=1)]] = [0.0, 0.25, 0.5, 0.75, 1.0]
    tilts: list[float] = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    width: Positive = 64
    other_widths: list[Positive] = [16, 32]
    read_steps: Positive = 400
    kept_steps: list[Positive] = [25, 50, 100, 200]
    read_batch: Positive = 256
    read_lr: LearningRate = 5e-3
    tune_steps: Positive = 50
    tune_batch: Positive = 128
    tune_lr: LearningRate = 3e-4
    strengths: Annotated[list[Positive], Field(min_length=1)] = [10, 25, 50, 100]
    grpo_batch: Positive = 32
    grpo_group: Annotated[int, Field(ge=2)] = 8
    betas: list[Annotated[float, Field(gt=0)]] = [0.3, 1.0]
    surrogate_temperature: Temperature = 0.3
    weights: list[Weight] = [0.3, 3.0]
    temperatures: list[Temperature] = [0.1]
    sides: list[Side] = ["1-z", "off"]
    forms: list[Form] = ["l2"]
    bce_weight: Weight = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    n_numbers: Positive = 6
    n_tables: Positive = 6
    longest: Annotated[int, Field(ge=2)] = 3
    slips: Annotated[float, Field(ge=0, lt=1)] = 0.1
    lookup_steps: Positive = 500
    lookup_kept: list[Positive] = [250]
    lookup_batch: Positive = 64
    lookup_lr: LearningRate = 6e-3
    lookup_layers: Positive = 2
    n_chains: Annotated[int, Field(ge=20)] = 100
    probe_steps: Positive = 100
    probe_pool: Positive = 600
    probe_rank: Positive = 8
    n_select: Positive = 50
    candidates: Annotated[list[Positive], Field(min_length=1)] = [1, 2, 4, 8, 16]
    n_house: Positive = 100
    n_samples: Positive = 50
    seed: int = 0
    n_boot: Positive = 1000

    @model_validator(mode="after")
    def _what_is_reported_is_kept(self):
        _check_reported(self.strengths, self.tune_steps)
        for kept, last in ((self.kept_steps, self.read_steps), (self.lookup_kept, self.lookup_steps)):
            if not all(step < last for step in kept):
                raise ValueError(f"the steps {kept} are kept of a reading of {last}; they must lie below it")
        return self


STUDIES: dict[str, type[FolderConfig]] = {  # what declares the parameters of a notebook
    study.NOTEBOOK: study
    for study in (
        SamplingStudy,
        LineageStudy,
        ChainStudy,
        CattoStudy,
        RepairStudy,
        LifecycleStudy,
        WorldStudy,
        ClaimsStudy,
    )
}
