"""Training of the family: each model as it would train alone, and losses that are what they say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from calib_utils.errors import TrainingError
from calib_utils.world.family import learning, tasks
from calib_utils.world.family.learning import pretrain, tune
from calib_utils.world.family.settings import PreTraining, Shape, Tuning
from calib_utils.world.family.text import RELATIONS, FactWorld, Lesson, instructions
from calib_utils.world.training import optimise

WORLDS = [FactWorld((20, 10, 16, 4), seed=seed) for seed in (0, 1)]
LESSON = Lesson(RELATIONS[:1], 1)
SFT = Tuning("sft", LESSON, 3e-3, examples=16, epochs=3, batch_size=8, keep=(1,))


@pytest.fixture(scope="module")
def read():
    return pretrain(WORLDS, Shape(16, 1), PreTraining(40, 8, keep=(1,)))


def apart(first, second):
    return max(float((first.weights[name] - second.weights[name]).abs().max()) for name in first.weights)


def wrong(stack, worlds=WORLDS):
    ids = torch.from_numpy(np.stack([world.text(50, np.random.default_rng(9)) for world in worlds]))
    logprobs = stack.logits(ids[..., :-1]).log_softmax(dim=-1)
    return -logprobs.gather(-1, ids[..., 1:, None]).mean().item()


def test_reading_lowers_the_loss_on_text_that_was_not_read(read):
    assert set(read) == {1, 40} and wrong(read[40]) < wrong(read[1]) - 0.5


def test_a_model_trains_beside_others_as_it_does_alone(monkeypatch):
    monkeypatch.setattr(learning, "best_cpu_dtype", lambda: torch.float32)
    both = pretrain(WORLDS, Shape(16, 1), PreTraining(4, 4))[4]
    alone = pretrain(WORLDS[1:], Shape(16, 1), PreTraining(4, 4))[4]
    for name, weight in alone.weights.items():
        torch.testing.assert_close(both.weights[name][1], weight[0], rtol=1e-3, atol=1e-5)


def test_rows_that_are_read_again_are_learned_by_heart():
    found = pretrain(WORLDS, Shape(32, 1), PreTraining(120, 8, rows=8))[120]
    rngs = [np.random.default_rng([world.seed, 51]) for world in WORLDS]
    ids = torch.from_numpy(np.stack([world.text(8, rng) for world, rng in zip(WORLDS, rngs, strict=True)]))
    logprobs = found.logits(ids[..., :-1]).log_softmax(dim=-1)
    assert -logprobs.gather(-1, ids[..., 1:, None]).mean().item() < 0.7 * wrong(found)


@pytest.mark.parametrize("rank", [0, 2])
def test_instructions_are_learned_with_all_weights_and_with_few(read, rank):
    found = tune(read[40], WORLDS, replace(SFT, rank=rank, epochs=20))
    told = [instructions(world, LESSON, 16, np.random.default_rng([world.seed, 52])) for world in WORLDS]
    asked, answers, _ = (torch.from_numpy(np.stack(each)) for each in zip(*told, strict=True))
    losses = {
        name: learning._supervised(stack, None, WORLDS, SFT, None, asked, answers, None).item()
        for name, stack in {"before": read[40], **found}.items()
    }
    assert losses[20] < losses[1] < losses["before"]
    moved = [name for name in read[40].weights if (found[20].weights[name] != read[40].weights[name]).any()]
    assert all(name.endswith("proj.weight") for name in moved) == bool(rank)
    if rank:
        change = found[20].weights[moved[0]][0] - read[40].weights[moved[0]][0]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= rank


def batch(group="known"):
    told = [instructions(world, LESSON, 8, np.random.default_rng(0), group) for world in WORLDS]
    return [torch.from_numpy(np.stack(each)) for each in zip(*told, strict=True)]


def test_preferences_begin_at_log_two_and_reject_a_wrong_value(read):
    rngs = [np.random.default_rng(0) for _ in WORLDS]
    dpo = Tuning("dpo", LESSON, 1e-3, examples=8, batch_size=8)
    loss = learning._preferred(read[40], read[40], WORLDS, dpo, rngs, *batch())
    assert loss.item() == pytest.approx(2 * math.log(2), abs=1e-4)
    found = tune(read[40], WORLDS, replace(dpo, epochs=10))[10]
    assert learning._preferred(found, read[40], WORLDS, dpo, rngs, *batch()).item() < loss.item()


def test_the_kl_term_draws_a_policy_back_to_its_start(read):
    """As good as no draw is right here, so that the KL term is all that moves the policy."""
    grpo, (asked, answers, relation) = Tuning("grpo", LESSON, 1e-2, examples=8, batch_size=8, beta=1.0), batch()
    rngs, moved = [np.random.default_rng(0) for _ in WORLDS], tune(read[40], WORLDS, SFT)[3].copy(trained=True)
    before = read[40].logits(asked, last=1).log_softmax(dim=-1)

    def gap():
        now = moved.logits(asked, last=1).log_softmax(dim=-1)
        return (before.exp() * (before - now)).sum(dim=-1).mean().item()

    def loss(step):
        return learning._rewarded(moved, read[40], WORLDS, grpo, rngs, asked, answers, relation)

    start = gap()
    for _ in optimise(moved.parameters(), loss, 30, 1e-3, lambda step: 1.0):
        pass
    assert 0 < gap() < start


def test_what_cannot_be_trained_is_refused(read):
    with pytest.raises(ValueError, match="method is 'ppo'"):
        replace(SFT, method="ppo")
    with pytest.raises(ValueError, match="must fit in examples"):
        replace(SFT, examples=4)
    with pytest.raises(TrainingError, match="lower learning_rate"):
        tune(read[40], WORLDS, replace(SFT, learning_rate=1e30))


def test_tasks_are_what_the_models_own_forward_passes_say(read):
    exam = tasks.Exam.of(WORLDS, 30, 20)
    found = tasks.measure(read[40], exam)
    for i in range(2):
        model = read[40].model(i)
        p = model(exam.asked[i]).logits[:, -1].softmax(dim=-1).max(dim=-1)
        table = found["facts generation"][i]
        np.testing.assert_allclose(table["confidence"], p.values, atol=1e-5)
        assert table["correct"].tolist() == p.indices.eq(exam.answers[i, :, 0]).int().tolist()
        p = model(exam.rows[i]).logits.softmax(dim=-1).max(dim=-1)
        at = torch.arange(30), exam.at[i] - 1
        np.testing.assert_allclose(found["next token"][i]["confidence"], p.values[at], atol=1e-5)
        assert (
            found["next token"][i]["correct"].tolist()
            == p.indices[at].eq(exam.rows[i][at[0], at[1] + 1]).int().tolist()
        )
        choice = found["multiple choice"][i]
        assert choice["confidence"].between(0.25, 1).all() and choice["entity"].str.startswith("person").all()
        whole = found["whole answers"][i]
        assert (whole["confidence"] <= table["confidence"]).all() and (whole["correct"] <= table["correct"]).all()
    with pytest.raises(ValueError, match="n_questions is 61"):
        tasks.Exam.of(WORLDS, 10, 61)
