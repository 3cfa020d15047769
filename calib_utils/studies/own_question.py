"""Asking: one question of one's own, answered by a model and merged by meaning."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from calib_utils import models, prompts
from calib_utils.data import load_questions
from calib_utils.semantics import Semantic, classes
from calib_utils.types import Question

_UNKNOWN = "?"  # the reference answer: nobody gives one


def ask(question: str, model: str = models.DEFAULT_MODEL, n_samples: int = 50, seed: int = 0) -> pd.DataFrame:
    """What a model answers in `n_samples` draws: class, confidence (share of the draws), responses merged in it.

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
    merged: dict[str, list] = defaultdict(list)
    for name, completion in zip(classes(asked, drawn, Semantic()), drawn, strict=True):
        merged[name].append(completion)
    rows = [
        {
            "class": name,
            "confidence": sum(c.count for c in found) / n_samples,
            "responses": ", ".join(dict.fromkeys(repr(c.text.strip()) for c in found)),
        }
        for name, found in merged.items()
    ]
    return pd.DataFrame(rows).sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
