"""`sample` on vLLM's engine, for models that one process samples from too slowly."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from calib_utils.errors import SamplingError
from calib_utils.models import encode
from calib_utils.models.vllm import Engine
from calib_utils.sampling.tokens import cut
from calib_utils.types import Completion, Prompt, SamplingConfig


def sample(lm: Engine, prompts: Sequence[Prompt], config: SamplingConfig) -> list[list[Completion]]:
    """`sampling.sample` with draws made one by one: the same distribution and record, other random numbers.

    Draws are a function of seed and prompt, up to the rounding of batches that vLLM puts together by load.

    Raises
    ------
    SamplingError : a log-probability that is not finite, or a prompt longer than the engine's context.
    """
    from vllm import SamplingParams

    requests, settings = [], []
    longest = lm.model.llm_engine.model_config.max_model_len
    for prompt in prompts:
        ids = encode(lm.tokenizer, prompt.shared + prompt.own, prompt.chat)
        if len(ids) + config.max_new_tokens > longest:
            raise SamplingError(
                f"prompt and completion need {len(ids) + config.max_new_tokens} tokens, the engine of {lm.name!r} "
                f"was loaded for {longest}; load it with a larger max_model_len, or use fewer shots"
            )
        requests.append({"prompt_token_ids": ids})
        settings.append(
            SamplingParams(
                n=config.n_samples if config.temperature > 0 else 1,
                temperature=config.temperature,
                max_tokens=config.max_new_tokens,
                stop=list(config.stop),
                stop_token_ids=sorted(lm.eos_ids),
                seed=_seed(config.seed, ids),
                logprobs=1,  # of the token drawn, and of the most probable one
            )
        )
    outputs = lm.model.generate(requests, settings, use_tqdm=False)
    return [_merged(lm, output.outputs, config) for output in outputs]


def _seed(seed: int, ids: Sequence[int]) -> int:
    digest = hashlib.blake2b(np.array([seed, *ids], dtype=np.int64).tobytes(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1  # vLLM adds the number of the draw to it


def _merged(lm: Engine, draws, config: SamplingConfig) -> list[Completion]:
    """Distinct completions with their counts, most frequent first, out of a request's draws."""
    times = Counter(tuple(draw.token_ids) for draw in draws)
    completions = []
    for draw in {tuple(draw.token_ids): draw for draw in draws}.values():
        ids = tuple(draw.token_ids)
        of_step = zip(ids, draw.logprobs, strict=True)
        steps = [(of[token].logprob, max(one.logprob for one in of.values())) for token, of in of_step]
        logprob = sum(own for own, _ in steps)
        if not math.isfinite(logprob):
            raise SamplingError(
                f"the logits of {lm.name!r} are NaN or infinite; load it with dtype='float32' (now {lm.dtype}) or "
                "check its weights"
            )
        text, stopped = cut(lm.tokenizer, ids, config.stop)
        completions.append(
            Completion(
                text=text,
                token_ids=ids,
                count=times[ids] if config.temperature > 0 else config.n_samples,
                logprob=logprob,
                finished=stopped or ids[-1] in lm.eos_ids,
                token_confidence=sum(math.exp(top) for _, top in steps) / len(ids),
            )
        )
    return sorted(completions, key=lambda c: (-c.count, -c.logprob, c.token_ids))
