"""Asking: one question of one's own, answered by a model and merged by meaning."""

from __future__ import annotations

import pandas as pd

from calib_utils import models, prompts
from calib_utils.data import load_questions
from calib_utils.semantics import Semantic, answers
from calib_utils.types import Question, Record

_UNKNOWN = "not known"  # the reference answer


def ask(question: str, model: str = models.DEFAULT_MODEL, n_samples: int = 50, seed: int = 0) -> pd.DataFrame:
    """What a model answers in `n_samples` draws, as `semantics.answers`: class, confidence, responses merged in it.

    The prompt shows ten facts with their answers, as in notebook 01. Classes are canonical texts: no other names of
    the answers are known.

    Raises
    ------
    ModuleNotFoundError : torch is not installed.
    ModelError : there is no such model.
    """
    from calib_utils.sampling import sample

    asked = Question("own", question, _UNKNOWN, "own", "test", "")
    shots = prompts.pick_shots(load_questions("facts", "train"), 10, seed)
    settings = prompts.sampling_config("concise", n_samples, seed)
    (drawn,) = sample(models.load(model), prompts.build_prompts([asked], shots, "concise"), settings)
    return answers(Record(asked, tuple(drawn), (), {}, ""), Semantic(), top=n_samples).drop(columns="reference")
