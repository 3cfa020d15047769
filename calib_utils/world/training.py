"""Training in an exact world: cross-entropy on fresh text, then rewards, preferences and remedies, all seeds at once.

Losses are those of `calib_utils.training.losses` and of trl, written for a `Stack`. Text, questions and draws are new
in every step. All random numbers of a model come from its own seed, so that it does not matter what is trained beside
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import STYLES, LookupWorld, check_same
from calib_utils.errors import TrainingError
from calib_utils.metrics import equal_width_bins
from calib_utils.training import losses
from calib_utils.world.exact import answer_masses, option_logprobs, stacked
from calib_utils.world.stack import Stack

_WARM_UP = 40
_LOOKUPS = (1, 2, 3)  # how often each k is read; larger ones follow from `longest`
_BINS = 10

PREFERRED = ("drawn", "mode")


@dataclass(frozen=True)
class Reading:
    """Cross-entropy on fresh text from a random start.

    Attributes
    ----------
    steps, batch_size : optimisation steps, texts in a step (of look-ups, in each of the two styles).
    learning_rate : of Adam at its highest; it rises for 40 steps and falls to 0 along a cosine.
    width, layers : of the models.
    keep : earlier steps that are kept as well.
    """

    steps: int = 400
    batch_size: int = 256
    learning_rate: float = 5e-3
    width: int = 64
    layers: int = 1
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.batch_size >= 1 and self.learning_rate > 0):
            raise ValueError(f"steps, batch_size and learning_rate must be positive: {self}")
        if not all(1 <= step < self.steps for step in self.keep):
            raise ValueError(f"keep is {self.keep}; its steps must lie between 1 and steps = {self.steps}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the highest."""
        return min(1.0, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True)
class Tuning:
    """What follows after reading, at a constant rate.

    Attributes
    ----------
    method : ``"sft"``, cross-entropy on the bare word of a true answer; ``"grpo"``, reward 1 for the class of an
        answer drawn from the world, advantages within the group, no KL term; ``"dpo"``, preferences, with the term
        of CATTO if `calibration_weight` is positive; ``"cft"``, cross-entropy on the text of the right option, with
        RCFT's term if `calibration_weight` is.
    steps, batch_size, learning_rate : as in `Reading`; `batch_size` counts questions.
    preferred : DPO: the chosen answer is ``"drawn"`` from the world, or the ``"mode"``, the most probable class of
        the model that training starts from. Rejected is a draw of that model of another class; where its draw is
        of the same class there is no pair.
    beta : of DPO.
    group_size : of GRPO.
    sft_weight : weight of cross-entropy on the chosen answer, added to DPO.
    label_smoothing : epsilon of cDPO.
    calibration_weight, surrogate_temperature, surrogate_gradient, rejected_side, calibration_form : as in
        `calib_utils.CATTOConfig`; of CFT only the weight, as in `calib_utils.CFTConfig`.
    keep : earlier steps that are kept as well.
    """

    method: str
    steps: int
    learning_rate: float = 3e-4
    batch_size: int = 64
    preferred: str = "mode"
    beta: float = 0.1
    group_size: int = 8
    sft_weight: float = 0.0
    label_smoothing: float = 0.0
    calibration_weight: float = 0.0
    surrogate_temperature: float = 1.0
    surrogate_gradient: bool = True
    rejected_side: str = "z"
    calibration_form: str = "l1"
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in _LOSSES:
            raise ValueError(f"method is {self.method!r}; use one of {tuple(_LOSSES)}")
        if self.preferred not in PREFERRED:
            raise ValueError(f"preferred is {self.preferred!r}; use one of {PREFERRED}")
        if not (self.steps >= 1 and self.batch_size >= 1 and self.learning_rate > 0 and self.beta > 0):
            raise ValueError(f"steps, batch_size, learning_rate and beta must be positive: {self}")
        if self.group_size < 2:
            raise ValueError("group_size is 1; a group-relative advantage needs at least 2 answers a question")
        if not all(1 <= step < self.steps for step in self.keep):
            raise ValueError(f"keep is {self.keep}; its steps must lie between 1 and steps = {self.steps}")
        if not (0 <= self.label_smoothing < 0.5 and self.sft_weight >= 0 and self.calibration_weight >= 0):
            raise ValueError(f"label_smoothing must lie in [0, 0.5), weights must not be negative: {self}")
        probe = torch.full((1, 1), 0.5)  # the loss itself refuses what it does not know
        losses.catto(probe, probe, probe, True, *self.calibration)

    @property
    def calibration(self) -> tuple:
        """The choices of `losses.catto`, in its order."""
        return self.surrogate_temperature, self.surrogate_gradient, self.rejected_side, self.calibration_form


def read_answers(
    worlds: Sequence[AnswerWorld], reading: Reading, progress: Callable[[int], None] | None = None
) -> dict[int, Stack]:
    """Models that have read answers, one per world, by step."""
    check_same(worlds)
    rngs = _generators(worlds, 11)

    def loss(stack: Stack, step: int) -> torch.Tensor:
        ids, answers = _texts(worlds, rngs, reading.batch_size)
        logprobs, mask = response_logprobs(stack, ids, answers)
        return -(logprobs * mask).sum(dim=-1).mean(dim=-1).sum()

    return _read(worlds, reading, loss, progress)


def read_lookups(
    worlds: Sequence[LookupWorld], reading: Reading, progress: Callable[[int], None] | None = None
) -> dict[int, Stack]:
    """Models that have read look-ups at once and by a chain, one per world, by step."""
    check_same(worlds)
    rngs = _generators(worlds, 12)
    turns = [k for k in (*_LOOKUPS, *range(4, worlds[0].longest + 1)) if k <= worlds[0].longest]

    def loss(stack: Stack, step: int) -> torch.Tensor:
        k, total = turns[step % len(turns)], 0.0
        for style in STYLES:
            every = [world.problems(k, "train") for world in worlds]
            asked = [p[rng.integers(len(p), size=reading.batch_size)] for p, rng in zip(every, rngs, strict=True)]
            found = zip(worlds, asked, rngs, strict=True)
            answers = stacked([world.answer_ids(world.steps(p, rng), style) for world, p, rng in found])
            ids = stacked([world.prompt_ids(p, style) for world, p in zip(worlds, asked, strict=True)])
            logits = stack.logits(torch.cat([ids, answers[..., :-1]], dim=2), answers.shape[2])
            wrong = F.cross_entropy(logits.flatten(0, 2), answers.flatten(), reduction="sum")
            total = total + wrong / reading.batch_size
        return total

    return _read(worlds, reading, loss, progress)


def tune(
    stack: Stack, worlds: Sequence[AnswerWorld], tuning: Tuning, before: Stack | None = None
) -> dict[int, Stack]:
    """Tuned models by step.

    `before` is what preferences refer to and rejected answers come from, by default `stack`.
    """
    check_same(worlds)
    if len(stack) != len(worlds):
        raise TrainingError(f"{len(stack)} models but {len(worlds)} worlds; give each model the world it has read")
    rngs = _generators(worlds, 13)
    loss = _LOSSES[tuning.method](worlds, tuning, rngs, before or stack)
    return _optimise(stack, tuning, loss, lambda step: 1.0, None)


def _read(worlds, reading: Reading, loss, progress) -> dict[int, Stack]:
    start = Stack.untrained(worlds[0].tokenizer(), [world.seed for world in worlds], reading.width, reading.layers)
    return _optimise(start, reading, loss, reading.rate, progress)


def _optimise(stack: Stack, settings: Reading | Tuning, loss, rate, progress) -> dict[int, Stack]:
    stack, kept = stack.copy(trained=True), {}
    weights, rate_at = stack.parameters(), settings.learning_rate
    for step in optimise(weights, lambda at: loss(stack, at), settings.steps, rate_at, rate):
        if step in (*settings.keep, settings.steps):
            kept[step] = stack.copy()
        if progress:
            progress(step)
    return kept


def optimise(
    leaves: Sequence[torch.Tensor],
    loss: Callable[[int], torch.Tensor],
    steps: int,
    learning_rate: float,
    rate: Callable[[int], float],
) -> Iterator[int]:
    """Adam on a sum of losses over models, so that every model moves as it would alone; gives the steps taken so far.

    `loss` and `rate`, a factor of `learning_rate`, are of a step counted from 0. TrainingError for a loss that is not
    finite.
    """
    optimiser = torch.optim.Adam(leaves, lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    for step in range(steps):
        value = loss(step)
        if not torch.isfinite(value):
            raise TrainingError(f"the loss is {value.item()} at step {step}; lower learning_rate {learning_rate}")
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        yield step + 1


def _generators(worlds, purpose: int) -> list[np.random.Generator]:
    return [np.random.default_rng([world.seed, purpose]) for world in worlds]


def _asked(worlds, rngs, n: int) -> list[np.ndarray]:
    """(n, 3) names per world out of its train split, with replacement."""
    every = [world.names("train") for world in worlds]
    return [names[rng.integers(len(names), size=n)] for names, rng in zip(every, rngs, strict=True)]


def _prompts(worlds, names) -> torch.Tensor:
    return stacked([world.prompt_ids(asked) for world, asked in zip(worlds, names, strict=True)])


def _texts(worlds, rngs, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, n, T) questions and (S, n, longest) true answers in true forms."""
    names = _asked(worlds, rngs, n)
    drawn = [world.draw(asked, rng) for world, asked, rng in zip(worlds, names, rngs, strict=True)]
    return _prompts(worlds, names), _said(worlds, names, *zip(*drawn, strict=True))


def _said(worlds, names, answers, forms) -> torch.Tensor:
    """(S, n, longest) answers to questions about `names`, in these forms."""
    found = zip(worlds, names, answers, forms, strict=True)
    return stacked([world.answer_ids(*each) for world, *each in found])


def response_mask(answers: torch.Tensor) -> torch.Tensor:
    """1 for the tokens of answers (..., T) up to the first END, 0 beyond it."""
    open_ = answers[..., :-1].ne(0).cumprod(dim=-1)
    return torch.cat([torch.ones_like(answers[..., :1]), open_], dim=-1).float()


def response_logprobs(stack: Stack, ids: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every token of `answers` (S, n, T) after `ids`, and the mask of those that count."""
    logits = stack.logits(torch.cat([ids, answers[..., :-1]], dim=2), answers.shape[2])
    return _of_tokens(logits, answers), response_mask(answers)


def _of_tokens(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]


@torch.no_grad()
def draw(
    stack: Stack, ids: torch.Tensor, length: int, rngs: Sequence[np.random.Generator]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One answer per row of `ids` (S, n, T), of `length` tokens: token ids, log-probabilities, max_v p_t(v), each
    (S, n, length). After END nothing counts (`response_mask`), and tokens are END.
    """
    cache, said, found = None, ids, []
    over = torch.zeros(ids.shape[:2], dtype=torch.bool)
    for _ in range(length):
        logits, cache = stack.extend(said, cache, last=1)
        p = logits[:, :, 0].softmax(dim=-1)
        uniform = stacked([rng.random((ids.shape[1], 1)) for rng in rngs]).float()
        token = (p.cumsum(dim=-1) <= uniform).sum(dim=-1).clamp(max=p.shape[-1] - 1).masked_fill(over, 0)
        said = token[..., None]
        found.append((token, p.gather(-1, said)[..., 0].clamp(min=1e-38).log(), p.amax(dim=-1)))
        over = over | token.eq(0)
    return tuple(torch.stack(each, dim=-1) for each in zip(*found, strict=True))


def answer_classes(world: AnswerWorld, tokens: torch.Tensor) -> torch.Tensor:
    """Number of the first answer among `tokens` (..., T), -1 for none."""
    answers = tokens - world.first_answer
    there = (answers >= 0) & (answers < world.n_answers)
    first = there.int().argmax(dim=-1, keepdim=True)
    return answers.gather(-1, first)[..., 0].where(there.any(dim=-1), torch.tensor(-1))


def _supervised(worlds, tuning: Tuning, rngs, before):
    def loss(stack: Stack, step: int) -> torch.Tensor:
        names = _asked(worlds, rngs, tuning.batch_size)
        found = zip(worlds, names, rngs, strict=True)
        right = [world.draw(asked, rng)[0] for world, asked, rng in found]
        bare = _said(worlds, names, right, [np.zeros_like(a) for a in right])
        logprobs, mask = response_logprobs(stack, _prompts(worlds, names), bare)
        return -(logprobs * mask).sum(dim=-1).mean(dim=-1).sum()

    return loss


def _rewarded(worlds, tuning: Tuning, rngs, before):
    def loss(stack: Stack, step: int) -> torch.Tensor:
        names = _asked(worlds, rngs, tuning.batch_size)
        right = stacked([w.draw(asked, rng)[0] for w, asked, rng in zip(worlds, names, rngs, strict=True)])
        ids = _prompts(worlds, names).repeat_interleave(tuning.group_size, dim=1)
        answers, _, _ = draw(stack, ids, worlds[0].longest, rngs)
        reward = answer_classes(worlds[0], answers).eq(right.repeat_interleave(tuning.group_size, dim=1)).float()
        group = reward.view(len(worlds), -1, tuning.group_size)
        advantage = ((group - group.mean(dim=-1, keepdim=True)) / (group.std(dim=-1, keepdim=True) + 1e-4)).flatten(1)
        logprobs, mask = response_logprobs(stack, ids, answers)
        return -((advantage[..., None] * logprobs * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))).sum()

    return loss


def _preferred(worlds, tuning: Tuning, rngs, before):
    before, world = before.copy(), worlds[0]

    def loss(stack: Stack, step: int) -> torch.Tensor:
        names = _asked(worlds, rngs, tuning.batch_size)
        drawn = [w.draw(asked, rng) for w, asked, rng in zip(worlds, names, rngs, strict=True)]
        liked = [answers for answers, _ in drawn]
        if tuning.preferred == "mode":
            liked = list(answer_masses(before, worlds, names).argmax(axis=2))
        chosen = _said(worlds, names, liked, [forms for _, forms in drawn])
        ids = _prompts(worlds, names)
        rejected, _, _ = draw(before, ids, world.longest, rngs)
        found = answer_classes(world, rejected)
        pair = (found.ne(stacked(liked)) & found.ge(0)).float()
        both, twice = torch.cat([chosen, rejected], dim=1), torch.cat([ids, ids], dim=1)
        logits = stack.logits(torch.cat([twice, both[..., :-1]], dim=2), world.longest)
        with torch.no_grad():
            reference, mask = response_logprobs(before, twice, both)
        logprobs = _of_tokens(logits, both)
        gain = ((logprobs - reference) * mask).sum(dim=-1)
        h = tuning.beta * (gain[:, : len(ids[0])] - gain[:, len(ids[0]) :])
        each = -(1 - tuning.label_smoothing) * F.logsigmoid(h) - tuning.label_smoothing * F.logsigmoid(-h)
        if tuning.sft_weight:
            each = each - tuning.sft_weight * (logprobs * mask).sum(dim=-1)[:, : len(ids[0])]
        if tuning.calibration_weight:
            confidence, margin = losses.token_confidence(logits, both)
            sides = zip(confidence.chunk(2, 1), margin.chunk(2, 1), mask.chunk(2, 1), (False, True), strict=True)
            terms = [losses.catto(c, m, inside, side, *tuning.calibration) for c, m, inside, side in sides]
            each = each + tuning.calibration_weight * (terms[0] + terms[1])
        return ((each * pair).sum(dim=1) / pair.sum(dim=1).clamp(min=1)).sum()

    return loss


@dataclass
class _Estimated:
    """The E-step of RCFT: accuracy of every bin of the top option's probability, (S, bins)."""

    accuracy: torch.Tensor = field(default_factory=lambda: torch.zeros(0))


def _chosen(worlds, tuning: Tuning, rngs, before, n_choices: int = 4, every: int = 10, rows: int = 512):
    """Multiple choice among `n_choices`; the E-step comes every `every` steps, on `rows` new questions [choice]."""
    world, estimated = worlds[0], _Estimated()

    def asked(n: int):
        names = _asked(worlds, rngs, n)
        right = stacked([w.draw(found, rng)[0] for w, found, rng in zip(worlds, names, rngs, strict=True)])
        order = stacked([rng.random((n, world.n_answers)) for rng in rngs])
        order.scatter_(-1, right[..., None], -1.0)  # the right one is among those taken
        return _prompts(worlds, names), order.argsort(dim=-1)[..., :n_choices]

    def loss(stack: Stack, step: int) -> torch.Tensor:
        if tuning.calibration_weight and step % every == 0:
            with torch.no_grad():
                p = option_logprobs(stack, world, *asked(rows)).softmax(dim=-1)
            bins = torch.from_numpy(equal_width_bins(p.amax(dim=-1).clamp(max=1).numpy(), _BINS))
            hits = torch.zeros(len(worlds), _BINS).scatter_add_(1, bins, p.argmax(dim=-1).eq(0).float())
            there = torch.zeros(len(worlds), _BINS).scatter_add_(1, bins, torch.ones_like(p[..., 0]))
            middle = (torch.arange(_BINS) + 0.5) / _BINS
            estimated.accuracy = torch.where(there > 0, hits / there.clamp(min=1), middle)
        ids, options = asked(tuning.batch_size)
        logprobs = option_logprobs(stack, world, ids, options)
        total = -logprobs[..., 0].mean(dim=-1).sum()
        if tuning.calibration_weight:
            p = logprobs.softmax(dim=-1)
            bins = torch.from_numpy(equal_width_bins(p.detach().amax(dim=-1).clamp(max=1).numpy(), _BINS))
            own = (bins + _BINS * torch.arange(len(worlds))[:, None]).flatten()
            accuracy = estimated.accuracy.gather(1, bins).flatten()
            total = total + tuning.calibration_weight * losses.rcft(p.flatten(0, 1), accuracy, own)
        return total

    return loss


_LOSSES = {"sft": _supervised, "grpo": _rewarded, "dpo": _preferred, "cft": _chosen}
