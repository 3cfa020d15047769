"""Bench: the sampler against `generate(num_return_sequences=M)`, alternating on the same machine."""

from __future__ import annotations

import resource
import statistics
import time

import pandas as pd
import torch

from calib_utils.data import load_questions
from calib_utils.models import LanguageModel, encode
from calib_utils.prompts import MAX_NEW_TOKENS, build_prompts, pick_shots
from calib_utils.sampling import Prompt, SamplingConfig, sample


def by_generate(lm: LanguageModel, prompts: list[Prompt], config: SamplingConfig) -> list[list[str]]:
    """M completions per prompt by `transformers`' own `generate`, with the attention it is fastest with."""
    torch.manual_seed(config.seed)
    attention = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("sdpa")
    texts = []
    for prompt in prompts:
        ids = torch.tensor([encode(lm.tokenizer, prompt.shared + prompt.own, prompt.chat)], device=lm.device)
        with torch.inference_mode():
            output = lm.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=config.temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=config.n_samples,
                max_new_tokens=config.max_new_tokens,
                stop_strings=list(config.stop) or None,
                tokenizer=lm.tokenizer,
            )
        texts.append(lm.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True))
    lm.model.set_attn_implementation(attention)
    return texts


def sampling(
    lm: LanguageModel, n_questions: int = 48, n_generate: int = 2, rounds: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Seconds per question of both ways on the embedded facts, ten-shot, concise.

    The ways take turns, `rounds` times; medians are reported. `generate` gets `n_generate` questions a round
    because it is slow, the sampler `n_questions`. Columns: method, m, seconds_per_question (median), low, high,
    n_questions, rounds, peak_gib (of the process, up to the first such call), speedup_over_generate (at M = 50),
    growth_from_m10 (of the sampler), device, threads, dtype, model.
    """
    questions = load_questions("facts", "dev", n=n_questions * rounds, seed=seed)
    shots = pick_shots(load_questions("facts", "train"), 10, seed)
    prompts = build_prompts(questions, shots, "concise")
    seconds: dict[tuple[str, int], list[float]] = {}
    peaks: dict[tuple[str, int], float] = {}
    for warm_up in (sample, by_generate):
        warm_up(lm, prompts[:2], SamplingConfig(n_samples=2, max_new_tokens=2))
    for turn in range(rounds):
        batch = prompts[turn * n_questions : (turn + 1) * n_questions]
        for method, m in (("merged", 10), ("merged", 50), ("generate", 50)):
            config = SamplingConfig(m, max_new_tokens=MAX_NEW_TOKENS["concise"], seed=turn)
            mine = (
                batch
                if method == "merged"
                else batch[turn * n_generate % (n_questions - n_generate + 1) :][:n_generate]
            )
            started = time.perf_counter()
            sample(lm, mine, config) if method == "merged" else by_generate(lm, mine, config)
            seconds.setdefault((method, m), []).append((time.perf_counter() - started) / len(mine))
            peaks.setdefault((method, m), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    return pd.DataFrame(
        [
            {
                "method": method,
                "m": m,
                "seconds_per_question": median[method, m],
                "low": min(values),
                "high": max(values),
                "n_questions": n_questions if method == "merged" else n_generate,
                "rounds": rounds,
                "peak_gib": peaks[method, m],
                "speedup_over_generate": median["generate", 50] / median[method, m] if m == 50 else float("nan"),
                "growth_from_m10": median[method, m] / median["merged", 10] if method == "merged" else float("nan"),
                "device": torch.cuda.get_device_name() if lm.device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                "dtype": lm.dtype,
                "model": lm.name,
            }
            for (method, m), values in seconds.items()
        ]
    )
