"""Parameters: what each notebook can be given, with type, range and default (those of profile ``cpu``)."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from calib_utils import data, models
from calib_utils.config import check_names
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import LookupWorld
from calib_utils.errors import ModelError
from calib_utils.home import ROOT
from calib_utils.studies.mixins.asking import Asking
from calib_utils.studies.mixins.catto import CattoMethods
from calib_utils.studies.mixins.lineage import Lineage
from calib_utils.studies.mixins.measuring import Measuring
from calib_utils.studies.mixins.members import Members
from calib_utils.studies.mixins.outputs import Outputs
from calib_utils.studies.mixins.overview import Overview
from calib_utils.studies.mixins.reasoning import ChainMethods
from calib_utils.studies.mixins.repair import Repair
from calib_utils.studies.mixins.sampling import Sampling
from calib_utils.types import Question


def _data_set(name: str, needs: str = "", optional: bool = False) -> str:
    """The name of a row of `DATASETS` in which `needs` holds."""
    if name or not optional:
        row = data.find(name)
        if needs and not getattr(row, needs):
            fit = [other for other, one in data.DATASETS.items() if getattr(one, needs)]
            raise ValueError(f"data set {name!r} has no {_HOLDS[needs]}; use one of {fit}")
    return name


def _model(name: str, optional: bool = False, **options) -> str:
    """A name that may stand for a model."""
    if name or not optional:
        try:
            models.check_name(name, **options)
        except ModelError as error:
            raise ValueError(str(error)) from error
    return name


def _device(name: str) -> str:
    """A kind of device that torch computes on, with its number or without."""
    check_names("there is no device", [re.sub(r":\d+$", "", name)], ("auto", "cpu", "cuda", "mps", "xpu"))
    return name


_HOLDS = {"choices": "options", "chains": "worked chains"}  # a column of the table, in words
DataSetName = Annotated[str, AfterValidator(_data_set)]
OtherDataSet = Annotated[str, AfterValidator(partial(_data_set, optional=True))]
ChoiceDataSet = Annotated[str, AfterValidator(partial(_data_set, needs="choices"))]
OtherChoiceDataSet = Annotated[str, AfterValidator(partial(_data_set, needs="choices", optional=True))]
ChainDataSet = Annotated[str, AfterValidator(partial(_data_set, needs="chains"))]
OtherChainDataSet = Annotated[str, AfterValidator(partial(_data_set, needs="chains", optional=True))]
ModelName = Annotated[str, AfterValidator(_model)]
OtherModel = Annotated[str, AfterValidator(partial(_model, optional=True))]
Adapter = Annotated[str, AfterValidator(partial(_model, optional=True, bundled=()))]
Device = Annotated[str, AfterValidator(_device)]

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Halved = Annotated[int, Field(ge=20)]  # questions that a loss gap reads in two halves
Seeds = Annotated[list[int], Field(min_length=1)]
LearningRate = Annotated[float, Field(gt=0)]
Temperature = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Side = Literal["z", "1-z", "off"]
Form = Literal["l1", "l2", "bce"]


class ClaimsStudy(Overview, Outputs):
    """Parameters of notebook 08, which reads what the others wrote."""

    NOTEBOOK: ClassVar[str] = "08_claims"


class AskingConfig(Asking, Measuring, Outputs):
    """Parameters of every notebook that asks models questions."""

    chat: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: Device = "auto"
    dataset: DataSetName = "facts"
    data_path: str = ""
    n_questions: Positive = 408
    n_shots: Count = 10
    seed: int = 0
    n_boot: Positive = 1000
    max_rows: Positive = 128

    @model_validator(mode="after")
    def _the_file_is_there_and_has_a_schema(self):
        if self.data_path:
            data.find(self.dataset).check_path(self.data_path)
            if not (ROOT / self.data_path).is_file():  # as a notebook sees it
                raise ValueError(f"data_path is {self.data_path!r}; there is no file {ROOT / self.data_path}")
        return self


class RunConfig(AskingConfig):
    """Parameters of every notebook that draws M answers of one model."""

    model: ModelName = "gemma-3-270m"
    n_samples: Positive = 50


class SamplingStudy(Sampling, RunConfig):
    """Parameters of notebook 01: public questions, and selected facts asked beside them.

    `n_public_used` questions of the data set and `n_used` of the facts are left out, as in `PreferenceStudy`.
    `m_values` are thinned from the M draws, so none may be larger than `n_samples`.
    """

    NOTEBOOK: ClassVar[str] = "01_base_semantic_calibration"

    adapter: Adapter = ""
    backend: Literal["transformers", "vllm"] = "transformers"
    dataset: DataSetName = "natural_questions"
    curated: DataSetName = "facts"
    n_questions: Halved = 400
    n_public_used: Count = 240
    n_curated: Halved = 400
    n_used: Count = 663
    m_values: list[Positive] = [5, 10, 20, 50]

    @model_validator(mode="after")
    def _budgets_are_drawn(self):
        if max(self.m_values, default=1) > self.n_samples:
            raise ValueError(f"m_values {self.m_values} go beyond n_samples = {self.n_samples}; lower them")
        return self


class PreferenceStudy(Lineage, RunConfig):
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
    def _what_is_held_out_is_there(self):
        row, default = data.find(self.dataset), type(self).model_fields["held_out"].default
        if row.built_in and self.held_out != default:  # of a public set the relations are not known before
            there = {question.relation for split in data.SPLITS for question in row.questions(split)}
            check_names(f"held_out: data set {row.name!r} has no relation", self.held_out, there)
        return self

    @model_validator(mode="after")
    def _reported_strength_of_dpo_is_trained(self):
        _check_reported(self.dpo_steps, self.dpo_reported)
        return self


def _check_reported(steps: list[int], reported: int, unit: str = "steps") -> None:
    if reported not in steps or steps != sorted(set(steps)):
        raise ValueError(f"{reported} {unit} are to be reported; the {unit} {steps} must rise and hold them")


class LineageStudy(PreferenceStudy):
    """Parameters of notebook 02: GRPO, and the released models."""

    NOTEBOOK: ClassVar[str] = "02_rl_degradation"

    n_questions: Positive = 300
    grpo_steps: Annotated[list[Positive], Field(min_length=1)] = [12, 24]
    grpo_reported: Positive = 24
    grpo_questions: Positive = 480
    grpo_lr: LearningRate = 5e-5
    grpo_group: Annotated[int, Field(ge=2)] = 8
    n_released: Positive = 400
    released_base: OtherModel = ""
    released_aligned: OtherModel = "smollm2-135m-instruct"

    @model_validator(mode="after")
    def _reported_strength_of_grpo_is_trained(self):
        _check_reported(self.grpo_steps, self.grpo_reported)
        return self


class CattoStudy(CattoMethods, PreferenceStudy):
    """Parameters of notebook 04: CATTO's choices, the methods beside it, and what is asked out-of-distribution."""

    NOTEBOOK: ClassVar[str] = "04_catto"

    n_questions: Positive = 204
    n_side: Positive = 204
    sft_seeds: list[int] = [3, 4, 5]
    out_dataset: OtherDataSet = ""
    task: OtherChainDataSet = "arithmetic"
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
    rcft_weight: Annotated[float, Field(gt=0)] = 1.0
    candidates: Annotated[list[Positive], Field(min_length=1)] = [1, 2, 4, 8, 16, 32]

    def places(self) -> dict[str, list[Question]]:
        """As every lineage's, and under "task" questions of one step of another task, if there is one."""
        if not self.task:
            return super().places()
        tasks = [question for question in data.load_questions(self.task, "test") if len(question.chain) == 1]
        return {**super().places(), "task": data.sample_evenly(tasks, self.n_task, self.seed)}

    @property
    def about(self) -> dict[str, str]:
        """As every notebook's, with the seeds of the SFT models that training starts from."""
        return {**super().about, "seeds": f"{super().about['seeds']} (SFT {' '.join(map(str, self.sft_seeds))})"}

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


class RepairStudy(Repair, PreferenceStudy):
    """Parameters of notebook 05: the aligned model to repair, and how it is fine-tuned."""

    NOTEBOOK: ClassVar[str] = "05_calibration_aware"

    dataset: ChoiceDataSet = "facts"
    n_questions: Positive = 400
    n_used: Count = 612
    aligned: OtherModel = ""
    out_dataset: OtherChoiceDataSet = ""
    n_out: Positive = 142
    n_dev: Positive = 204
    cft_steps: Annotated[list[Positive], Field(min_length=1)] = [10, 20, 40]
    cft_reported: Positive = 10
    cft_questions: Positive = 160
    cft_lr: LearningRate = 2e-4
    rcft_weight: Annotated[float, Field(gt=0)] = 1.0
    estimate_steps: Count = 0

    def pool(self, split: str) -> list[Question]:
        """As every lineage's, of the questions that have options."""
        return [question for question in super().pool(split) if question.choices]

    def outside(self) -> list[Question]:
        """As every lineage's, of the questions that have options."""
        return [question for question in super().outside() if question.choices]

    def places(self) -> dict[str, list[Question]]:
        """As every lineage's, and under "tuned" the training questions of CFT and RCFT."""
        tuned = self.train_questions()[self.first : self.first + self.cft_questions]
        return {**super().places(), "tuned": tuned}

    @property
    def first(self) -> int:
        """Where their window of the training questions begins: after those of the lineage's stages."""
        return 0 if self.aligned else self.sft_questions + self.dpo_questions

    @property
    def about(self) -> dict[str, str]:
        """As every notebook's; the model is the one that is repaired."""
        return {**super().about, "model": self.aligned or self.model}

    @model_validator(mode="after")
    def _reported_strength_of_cft_is_trained(self):
        _check_reported(self.cft_steps, self.cft_reported)
        return self


class ChainStudy(ChainMethods, RunConfig):
    """Parameters of notebook 03: two families of questions with worked chains, training, and cutting chains.

    `n_used` test questions of the data set are left out: earlier runs reported on them. `known` are the relations
    that composed questions may use; the base model knows facts of them, by the dev split.
    """

    NOTEBOOK: ClassVar[str] = "03_cot_degradation"

    dataset: ChainDataSet = "arithmetic"
    n_questions: Positive = 400
    n_used: Count = 100
    n_samples: Positive = 20
    n_shots: Count = 8
    elsewhere: ChainDataSet = "multihop"
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


class LifecycleStudy(Members, AskingConfig):
    """Parameters of notebook 06: the family that is pre-trained here, or a published series, and its tuning."""

    NOTEBOOK: ClassVar[str] = "06_lifecycle"

    n_questions: Positive = 180
    n_texts: Positive = 600
    n_shots: Count = 0
    models: list[ModelName] = []
    revisions: list[str] = []
    train_seeds: Seeds = [10, 11, 12, 13, 14, 15, 16, 17]
    shapes: Annotated[list[Annotated[list[Positive], Field(min_length=2, max_length=2)]], Field(min_length=2)] = [
        [16, 1],
        [32, 1],
        [48, 2],
        [80, 2],
        [112, 3],
    ]
    pretrain_steps: Annotated[int, Field(ge=2)] = 400
    kept_steps: list[Positive] = [40, 80, 160, 280]
    pretrain_batch: Positive = 48
    pretrain_lr: LearningRate = 5e-3
    memorised_rows: Positive = 192
    tuned_model: int = -1
    epochs: Annotated[list[Positive], Field(min_length=1)] = [1, 3, 10]
    reported_epochs: Positive = 3
    sft_examples: Positive = 96
    sft_lr: LearningRate = 1e-3
    lora_lr: LearningRate = 3e-3
    lora_rank: Positive = 2
    rl_examples: Positive = 32
    rl_epochs: Positive = 10
    rl_lr: LearningRate = 3e-4
    dpo_beta: Annotated[float, Field(gt=0)] = 0.1
    kl_weights: list[Weight] = [0.1, 0.0]
    tuning_batch: Positive = 16

    @model_validator(mode="after")
    def _a_model_is_tuned(self):
        n = len(self.models or self.shapes)
        if not -n <= self.tuned_model < n:
            raise ValueError(f"tuned_model is {self.tuned_model}; there are {n} models, counted from 0")
        return self

    @model_validator(mode="after")
    def _reported_epochs_are_trained(self):
        _check_reported(self.epochs, self.reported_epochs, "epochs")
        return self


class WorldStudy(Measuring, Outputs):
    """Parameters of notebook 07: the exact world, what is trained in it and how strongly, and what is measured.

    What a world may be is said by the world itself: `answer_world` and `lookup_world` make one.
    """

    NOTEBOOK: ClassVar[str] = "07_mechanism"

    train_seeds: Annotated[list[int], Field(min_length=2)] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    n_questions: Annotated[int, Field(ge=40)] = 600
    n_answers: int = 8
    n_forms: int = 5
    n_syllables: int = 20
    ambiguity: float = 1.0
    shifts: list[float] = [0.0, 0.25, 0.5, 0.75, 1.0]
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
    n_numbers: int = 6
    n_tables: int = 6
    longest: Annotated[int, Field(ge=2)] = 3
    slips: float = 0.1
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

    @property
    def about(self) -> dict[str, str]:
        """As every notebook's; the models are named by their width."""
        return {**super().about, "model": f"width {self.width}", "dataset": "world"}

    @model_validator(mode="after")
    def _what_is_reported_is_kept(self):
        _check_reported(self.strengths, self.tune_steps)
        for kept, last in ((self.kept_steps, self.read_steps), (self.lookup_kept, self.lookup_steps)):
            if not all(step < last for step in kept):
                raise ValueError(f"the steps {kept} are kept of a reading of {last}; they must lie below it")
        return self

    @model_validator(mode="after")
    def _the_worlds_can_exist(self):
        for shift in (0.0, *self.shifts):
            world = self.answer_world(0, shift)
        self.lookup_world(0)
        for split, n in (("dev", self.n_questions), ("test", max(self.n_house, self.n_select, self.n_questions))):
            world.names(split, n)
        world.names("train", self.probe_pool)
        return self

    def answer_world(self, seed: int, shift: float = 0.0) -> AnswerWorld:
        """The world of answers of a training seed; WorldError for one that cannot exist."""
        return AnswerWorld(self.n_answers, self.n_forms, self.ambiguity, shift, self.n_syllables, seed)

    def lookup_world(self, seed: int) -> LookupWorld:
        """The world of look-ups of a training seed; WorldError for one that cannot exist."""
        return LookupWorld(self.n_numbers, self.n_tables, self.longest, self.slips, seed)


class QuickstartStudy(Outputs):
    """Parameters of notebook 00, which reads shipped records: the stage to begin with, and a question of your own."""

    NOTEBOOK: ClassVar[str] = "00_quickstart"

    question: str = ""
    model: str = "gemma-3-270m"


STUDIES: dict[str, type[Outputs]] = {  # what declares the parameters of a notebook
    study.NOTEBOOK: study
    for study in (
        QuickstartStudy,
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
