"""Settings: sizes of the family's models, and how they are pre-trained and tuned. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from calib_utils.world.family.text import Lesson

_WARM_UP = 20
_LEAST = 0.1  # of the learning rate, at the end of its cosine
METHODS = ("sft", "dpo", "grpo")


@dataclass(frozen=True)
class Shape:
    """Size of a model: width (a multiple of 16) and layers."""

    width: int
    layers: int

    def __str__(self) -> str:
        return f"{self.width} x {self.layers}"


@dataclass(frozen=True)
class PreTraining:
    """Cross-entropy on text from a random start.

    Attributes
    ----------
    steps, batch_size : optimisation steps, and rows of text in a step.
    learning_rate : of Adam at its highest, for a width of 64; for others it falls with the root of the width. It
        rises for 20 steps and falls to a tenth along a cosine.
    keep : earlier steps that are kept as well.
    rows : 0 for fresh text in every step; else so many rows are drawn once and read again and again.
    """

    steps: int
    batch_size: int
    learning_rate: float = 5e-3
    keep: tuple[int, ...] = ()
    rows: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the highest."""
        along = (1 + math.cos(math.pi * step / self.steps)) / 2
        return min(1.0, (step + 1) / _WARM_UP) * (_LEAST + (1 - _LEAST) * along)


@dataclass(frozen=True)
class Tuning:
    """What follows after pre-training, at a constant rate.

    Attributes
    ----------
    method : ``"sft"``, cross-entropy on the answers of instructions; ``"dpo"``, the true answer preferred to another
        of its relation; ``"grpo"``, reward 1 for the true answer, advantages within a group of draws.
    lesson : the instructions; ``"dpo"`` and ``"grpo"`` take its relations, about people who are known.
    examples, epochs, batch_size : how many instructions, how often each is used, and how many are in a step.
    rank : of LoRA on all linear layers; 0 trains all weights.
    beta : of DPO; of GRPO the weight of the KL term, 0 for none.
    group_size : of GRPO.
    keep : earlier epochs that are kept as well.
    """

    method: str
    lesson: Lesson
    learning_rate: float
    examples: int = 256
    epochs: int = 10
    batch_size: int = 32
    rank: int = 0
    beta: float = 0.1
    group_size: int = 8
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; use one of {METHODS}")
        if self.rank < 0 or self.beta < 0 or self.group_size < 2 or self.examples < self.batch_size:
            raise ValueError(
                f"rank and beta must not be negative, groups hold 2, a batch must fit in examples: {self}"
            )
