"""Types: what travels along the data's way, from a question to an estimate. Plain data, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from calib_utils.errors import DataError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Question:
    """One question with its reference answer.

    Attributes
    ----------
    id : unique within its data set.
    text : the question as asked.
    answer : the reference answer.
    aliases : other names of the reference answer that count as the same class.
    relation : group for per-relation results (a relation of the facts, a subject of MMLU, or the data set).
    split : train, dev or test.
    statement : the answer as a full sentence, for style ``"sentence"``.
    choices : options of the multiple-choice form with `answer` among them, or None.
    popularity : 0 (obscure) to 1 (famous) within its relation, or None.
    chain : the worked reasoning, one sentence per step, for style ``"cot"``; empty if there is none.
    """

    id: str
    text: str
    answer: str
    relation: str
    split: str
    statement: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    popularity: float | None = None
    chain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("text", "answer"):
            if not str(getattr(self, field)).strip():
                raise DataError(f"question {self.id!r} has an empty {field}")
        if self.split not in SPLITS:
            raise DataError(f"question {self.id!r} has split {self.split!r}; use one of {SPLITS}")
        if self.choices is not None:
            if self.answer not in self.choices:
                raise DataError(f"question {self.id!r}: the answer {self.answer!r} is not among {self.choices}")
            if len(set(self.choices)) != len(self.choices):
                raise DataError(f"question {self.id!r} repeats an option: {self.choices}")

    def as_row(self) -> dict:
        """Its fields as records and keys of trained stages hold them, where `popularity` is called "fame"."""
        return {"fame" if name == "popularity" else name: value for name, value in asdict(self).items()}

    @classmethod
    def of_row(cls, row: Mapping) -> Question:
        """The question whose `as_row` has been through JSON."""
        fields = {"popularity" if name == "fame" else name: value for name, value in row.items()}
        lists = {name: tuple(fields.get(name) or ()) for name in ("aliases", "chain")}
        return cls(**{**fields, **lists, "choices": tuple(fields["choices"]) if fields["choices"] else None})


@dataclass(frozen=True)
class Prompt:
    """Text to complete. `shared` (few-shot examples) is computed once for all prompts that begin with it."""

    shared: str
    own: str
    chat: bool = False  # the text was written by a chat template, special tokens included
    turns: str = ""  # of a chat: digest of its turns, which tell it apart where its template is not at hand

    @property
    def blank(self) -> str:
        """What stands between the prompt and an answer: a blank in plain text, nothing after a chat template."""
        return "" if self.chat else " "


@dataclass(frozen=True)
class SamplingConfig:
    """How to draw completions.

    Attributes
    ----------
    n_samples : M >= 1, draws per prompt.
    temperature : T >= 0; draws come from softmax(logits / T) over the whole vocabulary, T = 0 is greedy.
    max_new_tokens : a completion is cut there and marked unfinished.
    stop : a completion ends where one of these strings appears; the string is not part of its text.
    seed : draws are a function of seed and prompt only.
    """

    n_samples: int = 50
    temperature: float = 1.0
    max_new_tokens: int = 16
    stop: tuple[str, ...] = ("\n",)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples is {self.n_samples}; it must be at least 1")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature is {self.temperature}; it must be a finite number, 0 (greedy) or more")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if any(not text for text in self.stop):
            raise ValueError("stop contains an empty string; remove it")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, in words that mean the same on every machine and in every version of a library.

    Attributes
    ----------
    model : the name that it, or the model below its adapter, was asked for by; of a folder its last part.
    stage : method of the stage that it was trained in; empty for a model that was not trained here.
    details : settings of that stage that tell it from others of the same method.
    seed, step : of that stage.
    key : 16 hexadecimal digits of the stage, its parents, its questions and B; empty without a stage.
    """

    model: str
    stage: str = ""
    details: str = ""
    seed: int | None = None
    step: int | None = None
    key: str = ""

    @property
    def parts(self) -> list:
        """What finds all that is shipped about the model."""
        return [self.model, self.key, self.step]

    def __str__(self) -> str:
        """`dpo (rejected minority), seed 3, step 20`, or the model's name."""
        if not self.stage:
            return self.model
        return f"{self.stage}{self.details and f' ({self.details})'}, seed {self.seed}, step {self.step}"


@dataclass(frozen=True)
class Completion:
    """One distinct completion and how often it was drawn.

    Attributes
    ----------
    text : the decoded tokens up to the stop string or end token.
    token_ids : what was drawn, with the token that ended it.
    count : how many of the M draws it is.
    logprob : natural logarithm of its probability under the sampled distribution; for T = 0 (a point mass)
        its probability at T = 1.
    finished : False when it was cut at `max_new_tokens`.
    token_confidence : mean over its tokens of c_t = max_v p_t(v) (NaN if it was not measured).
    """

    text: str
    token_ids: tuple[int, ...]
    count: int
    logprob: float
    finished: bool
    token_confidence: float = math.nan


@dataclass(frozen=True)
class Record:
    """One question under one condition.

    Attributes
    ----------
    question : what was asked.
    completions : distinct completions; counts sum to M.
    reference_ids : token ids of the reference answer as it would continue the prompt.
    condition : model, fingerprint, dtype, device, style, sampling settings, library versions.
    key : hash of everything that determines the draws.
    """

    question: Question
    completions: tuple[Completion, ...]
    reference_ids: tuple[int, ...]
    condition: dict
    key: str


class Response(NamedTuple):
    """What a collapse function looks at: the text of a completion and its token ids."""

    text: str
    token_ids: tuple[int, ...] = ()


Collapse = Callable[[Response, Question], str]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of questions.

    Calibration errors are debiased: `plug_in` is the usual value, which sampling noise inflates, and `floor` the
    95 % quantile of what a calibrated model with these confidences would read. NaN for other metrics.
    """

    value: float
    low: float
    high: float
    n: int
    plug_in: float = math.nan
    floor: float = math.nan

    def __str__(self) -> str:
        """`0.041 [0.030, 0.052]`."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
