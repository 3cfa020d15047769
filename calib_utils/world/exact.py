"""Exact: class masses of trained models by enumeration, without sampling.

B names the first answer of a text, so that a text belongs to a class as soon as its answer word stands there.
Enumerated is what may stand before that word: nothing or one leading word (answers), the same after name and verb
(sentences), the steps of a chain (look-ups).
All other texts are the mass that is missing from 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import LookupWorld
from calib_utils.data.world.vocabulary import SPECIAL, THEREFORE, WorldError
from calib_utils.metrics.scores import checked
from calib_utils.world.stack import Cache, Stack

_ROWS = 4096  # questions, over all models, that are forwarded together


def stacked(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Arrays of one shape, one per model, as a tensor (S, ...)."""
    return torch.from_numpy(np.stack(arrays))


@torch.no_grad()
def answer_masses(stack: Stack, worlds: Sequence[AnswerWorld], names: Sequence[np.ndarray]) -> np.ndarray:
    """(S, n, answers) probability that model s answers question n with each answer, in any form.

    mass(a) = p(a | x) + sum over leading words m of p(m | x) p(a | x, m); for sentences the sum over verbs v of this
    after "name v", times p(name v | x). `names` are (n, 3) per model.
    """
    world, found = worlds[0], []
    ids = stacked([one.prompt_ids(asked) for one, asked in zip(worlds, names, strict=True)])
    openings = []
    for verb in range(len(world.verbs)):
        pairs = zip(worlds, names, strict=True)
        openings.append(stacked([one.opening_ids(asked, np.full(len(asked), verb)) for one, asked in pairs]))
    at_once = max(_ROWS // len(stack), 1)
    for start in range(0, ids.shape[1], at_once):
        part = ids[:, start : start + at_once]
        if not openings:
            found.append(_named(stack, world, *stack.extend(part, None, last=1)))
            continue
        mass = 0.0
        for every in openings:
            said = every[:, start : start + at_once]
            logits, cache = stack.extend(torch.cat([part, said], dim=2), None, last=said.shape[2] + 1)
            before = logits[:, :, :-1].log_softmax(dim=-1).gather(-1, said[..., None])[..., 0].sum(dim=-1)
            mass = mass + before.exp()[..., None] * _named(stack, world, logits[:, :, -1:], cache)
        found.append(mass)
    return torch.cat(found, dim=1).double().numpy()


def _named(stack: Stack, world: AnswerWorld, logits: torch.Tensor, cache: Cache) -> torch.Tensor:
    """(S, n, answers) mass of what comes next: an answer, or a leading word and then an answer."""
    answers = slice(world.first_answer, world.first_answer + world.n_answers)
    p = logits[:, :, 0].softmax(dim=-1)
    mass = p[..., answers].clone()
    for word in range(world.first_before, world.first_before + len(world.before)):
        said = torch.full((*p.shape[:2], 1), word)
        after = stack.extend(said, cache)[0][:, :, 0].softmax(dim=-1)
        mass += p[..., word, None] * after[..., answers]
    return mass


@torch.no_grad()
def option_masses(stack: Stack, worlds: Sequence[AnswerWorld], names, options: Sequence[np.ndarray]) -> np.ndarray:
    """(S, n, K) multiple choice: log-probability of each option's bare word with END, as a whole answer.

    `options` are answers by number, (n, K) per model. `semantics.option_probabilities` renormalises them.
    """
    ids = stacked([one.prompt_ids(asked) for one, asked in zip(worlds, names, strict=True)])
    return option_logprobs(stack, worlds[0], ids, stacked(options)).double().numpy()


def option_logprobs(stack: Stack, world: AnswerWorld, ids: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    """`option_masses` of prompts (S, n, T), with gradients; WorldError for a world of sentences."""
    if world.verbs:
        raise WorldError("multiple choice is answered with a bare word: use a world with style 'concise'")
    s, n, k = options.shape
    words = (world.first_answer + options).reshape(s, n * k, 1)
    rows = torch.cat([ids.repeat_interleave(k, dim=1), words], dim=2)
    logprobs = stack.logits(rows, last=2).log_softmax(dim=-1)
    return (logprobs[:, :, 0].gather(-1, words)[..., 0] + logprobs[:, :, 1, 0]).view(s, n, k)


@torch.no_grad()
def lookup_paths(
    stack: Stack, worlds: Sequence[LookupWorld], problems: Sequence[np.ndarray], style: str
) -> np.ndarray:
    """(S, n, paths, numbers) probability of every chain of steps (in lexical order) with every answer after it.

    At once there is one path, the empty one; k look-ups have numbers^(k - 1) paths.
    """
    world, size = worlds[0], worlds[0].n_numbers
    ids = stacked([one.prompt_ids(asked, style) for one, asked in zip(worlds, problems, strict=True)])
    steps = problems[0].shape[1] - 2 if style == "cot" else 0
    at_once = max(_ROWS * 8 // (len(stack) * size**steps), 1)
    return np.concatenate([_paths(stack, world, part, style, steps) for part in ids.split(at_once, dim=1)], axis=1)


def _paths(stack: Stack, world: LookupWorld, ids: torch.Tensor, style: str, steps: int) -> np.ndarray:
    s, n, _ = ids.shape
    size, first = world.n_numbers, world.first_step
    logits, cache = stack.extend(ids, None, last=1)
    if style == "concise":
        first = world.first_number
        return logits[:, :, 0].softmax(dim=-1)[:, :, None, first : first + size].double().numpy()
    mass = torch.zeros(s, n, 1)
    for _ in range(steps):
        here = logits[:, :, 0].log_softmax(dim=-1)[..., first : first + size]
        mass = (mass[..., None] + here.view(s, n, -1, size)).flatten(2)
        cache = [tuple(x.repeat_interleave(size, dim=1) for x in pair) for pair in cache]
        said = (first + torch.arange(size)).repeat(mass.shape[1] * mass.shape[2] // size).expand(s, -1)
        logits, cache = stack.extend(said[..., None], cache)
    therefore = SPECIAL.index(THEREFORE)
    mass = mass + logits[:, :, 0].log_softmax(dim=-1)[..., therefore].view(s, n, -1)
    said = torch.full((s, logits.shape[1], 1), therefore)
    last = stack.extend(said, cache)[0][:, :, 0].log_softmax(dim=-1)[..., first : first + size]
    return (mass[..., None] + last.view(s, n, -1, size)).exp().double().numpy()


def intermediate(paths: np.ndarray, steps: np.ndarray, k: int) -> np.ndarray:
    """(n, k) g_i of Theorem 9: Pr[B(z) = k* | x, z_<=i] after i = 0 .. k - 1 steps of one chain per question.

    Parameters
    ----------
    paths : (n, numbers^(k - 1), numbers) of one model (`lookup_paths`).
    steps : (n, k - 1) numbers of the chains that are followed.
    """
    n, _, size = paths.shape
    top = paths.sum(axis=1).argmax(axis=1)
    tree = paths.reshape(n, *[size] * (k - 1), size)
    found = []
    for i in range(k):
        below = tree.reshape(n, -1, size).sum(axis=1)
        found.append(below[np.arange(n), top] / below.sum(axis=1))
        if i < k - 1:
            tree = tree[np.arange(n), steps[:, i]]
    return np.stack(found, axis=1)


def scores(masses: np.ndarray, truth: np.ndarray, reference: np.ndarray, ids: Sequence[str]) -> pd.DataFrame:
    """One row per question of one model.

    Parameters
    ----------
    masses, truth : (n, classes) probabilities of the model and of the world.
    reference : (n,) the answer that was drawn from the world.

    Columns: question_id, confidence, correct (0 or 1), truth (true probability that the prediction is right), best
    (that of the most probable answer), distance (total variation between model and truth), covered (mass of all
    classes).
    """
    rows, prediction = np.arange(len(masses)), masses.argmax(axis=1)
    covered = masses.sum(axis=1)
    confidence, correct = checked(np.minimum(masses.max(axis=1), 1.0), (prediction == reference).astype(float))
    lost = np.maximum(1 - covered, 0)
    return pd.DataFrame(
        {
            "question_id": list(ids),
            "confidence": confidence,
            "correct": correct.astype(int),
            "truth": truth[rows, prediction],
            "best": truth.max(axis=1),
            "distance": (np.abs(masses - truth).sum(axis=1) + lost) / 2,
            "covered": covered,
        }
    )
