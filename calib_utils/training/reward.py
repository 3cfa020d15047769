"""Reward: the verifiable reward of RL, and its draws by the package's own sampler."""

from __future__ import annotations

from collections.abc import Sequence

from calib_utils import prompts
from calib_utils.models import LanguageModel
from calib_utils.sampling import sample
from calib_utils.semantics import right_class
from calib_utils.training.run import Run, prompt_text
from calib_utils.types import Collapse, Question, Response, SamplingConfig


def correctness_reward(questions: Sequence[Question], references: Sequence[tuple[int, ...]], collapse: Collapse):
    """The verifiable reward of RL: 1 where B(answer) = B(reference), else 0. A reward function for trl.

    `references` are the token ids of the reference answers, for collapse functions that look at tokens.
    """
    known = {
        question.id: (question, right_class(question, collapse, ids))
        for question, ids in zip(questions, references, strict=True)
    }

    def correct(completions, completion_ids, id, **_):
        rewards = []
        for text, ids, name in zip(completions, completion_ids, id, strict=True):
            question, right = known[name]
            answer = min((text.partition(stop)[0] for stop in prompts.STOP), key=len)
            rewards.append(float(collapse(Response(answer, tuple(ids)), question) == right))
        return rewards

    return correct


def rollout_by_sampler(run: Run):
    """Draws for GRPO by the package's own sampler: each distinct prefix of a group is computed once."""
    base = run.base
    known = {prompt_text(base.tokenizer, prompt): prompt for prompt in run.asked}

    def rollout(texts: list[str], trainer) -> dict:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        policy = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        lm = LanguageModel.of(policy, base.tokenizer, base.name, base.fingerprint)
        size = trainer.num_generations
        seed = run.stage.seed * 1_000_003 + trainer.state.global_step
        config = SamplingConfig(size, 1.0, trainer.max_completion_length, prompts.STOP, seed)
        policy.eval()  # no dropout, and no gradient checkpointing, which would switch the cache off
        try:
            with trainer.accelerator.autocast():
                drawn = sample(lm, [known[text] for text in texts[::size]], config)
        finally:
            policy.train()
        answers = [list(c.token_ids) for completions in drawn for c in completions for _ in range(c.count)]
        ids = [base.tokenizer(text).input_ids for text in texts]
        return {"prompt_ids": ids, "completion_ids": answers, "logprobs": None}

    return rollout
