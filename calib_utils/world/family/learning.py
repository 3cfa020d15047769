"""Learning: pre-training on fresh text, instruction tuning, LoRA, DPO and GRPO, for all training seeds at once.

Adam on a sum of losses over models, so that every model moves as it would alone. Matrix products are computed in
bfloat16 where the processor is fast at it, weights kept in float32. All random numbers of a model come from its
own seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from calib_utils.models import best_cpu_dtype
from calib_utils.world.family.settings import PreTraining, Shape, Tuning
from calib_utils.world.family.text import ANSWER_LONGEST, FactWorld, Lesson, instructions
from calib_utils.world.stack import Stack
from calib_utils.world.training import draw, optimise, response_logprobs

_WIDTH = 64  # of models that are trained at the learning rate as given


def pretrain(
    worlds: Sequence[FactWorld], shape: Shape, settings: PreTraining, progress: Callable[[int], None] | None = None
) -> dict[int, Stack]:
    """Models of one shape by step, one for each world."""
    seeds = [world.seed for world in worlds]
    stack = Stack.untrained(worlds[0].tokenizer(), seeds, shape.width, shape.layers).copy(trained=True)
    rngs = [np.random.default_rng([seed, 51]) for seed in seeds]
    pool = [world.text(settings.rows, rng) for world, rng in zip(worlds, rngs, strict=True)] if settings.rows else []

    def batch(step: int) -> torch.Tensor:
        if pool:
            found = [
                rows[rng.integers(len(rows), size=settings.batch_size)] for rows, rng in zip(pool, rngs, strict=True)
            ]
        else:
            found = [world.text(settings.batch_size, rng) for world, rng in zip(worlds, rngs, strict=True)]
        return torch.from_numpy(np.stack(found))

    def loss(step: int) -> torch.Tensor:
        ids = batch(step)
        with _fast():
            logits = stack.logits(ids[..., :-1])
        wrong = F.cross_entropy(logits.float().flatten(0, 2), ids[..., 1:].flatten(), reduction="sum")
        return wrong / ids[0, :, 1:].numel()

    rate = settings.learning_rate * math.sqrt(_WIDTH / shape.width)
    kept = {}
    for step in optimise(stack.parameters(), loss, settings.steps, rate, settings.rate):
        if step in (*settings.keep, settings.steps):
            kept[step] = stack.copy()
        if progress:
            progress(step)
    return kept


def tune(stack: Stack, worlds: Sequence[FactWorld], tuning: Tuning) -> dict[int, Stack]:
    """Tuned models by epoch."""
    rngs = [np.random.default_rng([world.seed, 52]) for world in worlds]
    relations = [kind for kind in tuning.lesson.kinds if kind not in ("sum", "count", "echo")]
    preferred = tuning.method != "sft"
    lesson = Lesson(tuple(relations), tuning.lesson.phrasings) if preferred else tuning.lesson
    group = "known" if preferred else "unread"
    told = [instructions(world, lesson, tuning.examples, rng, group) for world, rng in zip(worlds, rngs, strict=True)]
    asked, answers, relation = (torch.from_numpy(np.stack(each)) for each in zip(*told, strict=True))
    before, leaves, current = stack, *_leaves(stack, tuning.rank, rngs)
    steps = tuning.examples // tuning.batch_size
    orders = iter([])

    def batch(step: int) -> tuple[torch.Tensor, ...]:
        nonlocal orders
        if step % steps == 0:
            order = torch.from_numpy(np.stack([rng.permutation(tuning.examples) for rng in rngs]))
            orders = iter(order[:, : steps * tuning.batch_size].split(tuning.batch_size, dim=1))
        at, seeds = next(orders), torch.arange(len(worlds))[:, None]
        return asked[seeds, at], answers[seeds, at], relation[seeds, at]

    def loss(step: int) -> torch.Tensor:
        return _LOSSES[tuning.method](current(), before, worlds, tuning, rngs, *batch(step))

    kept = {}
    for step in optimise(leaves, loss, steps * tuning.epochs, tuning.learning_rate, lambda step: 1.0):
        if step % steps == 0 and step // steps in (*tuning.keep, tuning.epochs):
            kept[step // steps] = current().copy()
    return kept


def _leaves(stack: Stack, rank: int, rngs) -> tuple[list[torch.Tensor], Callable[[], Stack]]:
    """What is trained, and the stack that it makes: all weights, or an addition of low rank to linear layers."""
    if not rank:
        trained = stack.copy(trained=True)
        return trained.parameters(), lambda: trained
    down, up = {}, {}
    for name, weight in stack.weights.items():
        if name.endswith("proj.weight"):
            models, out, into = weight.shape
            start = np.stack([rng.normal(0, into**-0.5, (rank, into)) for rng in rngs])
            down[name] = torch.from_numpy(start).float().requires_grad_(True)
            up[name] = torch.zeros(models, out, rank, requires_grad=True)
    return [*down.values(), *up.values()], lambda: stack.with_updates({name: up[name] @ down[name] for name in up})


def _fast():
    return torch.autocast("cpu", torch.bfloat16, enabled=best_cpu_dtype() is torch.bfloat16)


def _supervised(stack, before, worlds, tuning, rngs, asked, answers, relation) -> torch.Tensor:
    logprobs, mask = response_logprobs(stack, asked, answers)
    return -((logprobs * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))).sum()


def _preferred(stack, before, worlds, tuning, rngs, asked, answers, relation) -> torch.Tensor:
    rejected = answers.clone()
    moved = [
        rng.integers(1, world.n_values, size=r.shape) for world, rng, r in zip(worlds, rngs, relation, strict=True)
    ]
    for i, world in enumerate(worlds):
        other = (world.value_of(answers[i, :, :2].numpy()) + moved[i]) % world.n_values
        rejected[i, :, :2] = torch.from_numpy(world.value_ids(relation[i].numpy(), other))
    both, twice = torch.cat([answers, rejected], dim=1), torch.cat([asked, asked], dim=1)
    logprobs, mask = response_logprobs(stack, twice, both)
    with torch.no_grad():
        reference, _ = response_logprobs(before, twice, both)
    chosen, worse = (((logprobs - reference) * mask).sum(dim=-1)).chunk(2, dim=1)
    return -F.logsigmoid(tuning.beta * (chosen - worse)).mean(dim=1).sum()


def _rewarded(stack, before, worlds, tuning, rngs, asked, answers, relation) -> torch.Tensor:
    ids, wanted = (table.repeat_interleave(tuning.group_size, dim=1) for table in (asked, answers))
    said, _, _ = draw(stack, ids, ANSWER_LONGEST, rngs)
    reward = said.eq(wanted).all(dim=-1).float().view(len(worlds), -1, tuning.group_size)
    advantage = (reward - reward.mean(dim=-1, keepdim=True)) / (reward.std(dim=-1, keepdim=True) + 1e-4)
    logprobs, mask = response_logprobs(stack, ids, said)
    each = advantage.flatten(1)[..., None] * logprobs
    if tuning.beta:
        with torch.no_grad():
            reference, _ = response_logprobs(before, ids, said)
        apart = reference - logprobs
        each = each - tuning.beta * (apart.exp() - apart - 1)
    return -((each * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))).sum()


_LOSSES = {"sft": _supervised, "dpo": _preferred, "grpo": _rewarded}
