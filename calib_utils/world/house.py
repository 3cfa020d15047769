"""House: a model of the world in the hands of the rest of the package, its draws beside what is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calib_utils import metrics, plots, semantics
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import LookupWorld
from calib_utils.models import LanguageModel
from calib_utils.prompts import build_prompts
from calib_utils.records import collect
from calib_utils.semantics import Chain, Semantic, number
from calib_utils.types import Collapse, Record, SamplingConfig


def collapse(world: AnswerWorld | LookupWorld, style: str = "concise") -> Collapse:
    """B: the first answer that a text names, in whatever form; of look-ups the number at the end of the chain."""
    if isinstance(world, AnswerWorld):
        return Semantic(world.known_names(), sentences=True)
    world.check_style(style)
    return number if style == "concise" else Chain(number)


def ask(
    lm: LanguageModel, world: AnswerWorld, n: int, n_samples: int, folder: str | Path, seed: int = 0
) -> list[Record]:
    """Records of `n` test questions of the world, drawn by the project's sampler."""
    questions = world.questions("test", n, seed)
    config = SamplingConfig(n_samples, 1.0, 2 * world.longest, seed=seed)
    return collect(lm, questions, build_prompts(questions, [], world.style), config, folder, "world")


def diagram(
    records: Sequence[Record], world: AnswerWorld, masses: np.ndarray, n_boot: int = 1000, seed: int = 0
) -> tuple[object, pd.DataFrame]:
    """Confidence from draws against the exact mass of the same class, and the reliability diagram from draws.

    `masses` (n, answers) are those of the same questions (`exact.answer_masses`). Returns the figure and its numbers:
    question_id, confidence (from draws), exact, correct.
    """
    scores = semantics.score(records, collapse(world))
    order = {answer: i for i, answer in enumerate(world.answers)}
    exact = [
        p[order[name]] if name in order else np.nan for p, name in zip(masses, scores["prediction"], strict=True)
    ]
    table = scores[["question_id", "confidence", "correct"]].assign(exact=exact)
    figure, axes = plots.panels(2)
    axes[0].plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", zorder=1)
    axes[0].plot(table["exact"], table["confidence"], "o", markersize=4, alpha=0.6)
    draws = sum(c.count for c in records[0].completions)
    axes[0].set(xlim=(0, 1), ylim=(0, 1), xlabel="exact class mass", ylabel=f"semantic confidence of {draws} draws")
    axes[0].set(title=f"draws against enumeration, n = {len(table)}", aspect="equal")
    pair = table["confidence"], table["correct"]
    error = metrics.evaluate(*pair, "smece", n_boot, seed)
    plots.reliability_diagram(
        metrics.reliability_curve(*pair, n_boot, seed), error, "reliability, from draws", axes[1]
    )
    return figure, table
