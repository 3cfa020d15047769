"""The vLLM backend: `sampling.sample` on vLLM's engine, for models that one process samples from too slowly.

vLLM is optional and wants an environment of its own: requirements-vllm.txt.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calib_utils import models
from calib_utils.models import LanguageModel, ModelError, encode
from calib_utils.sampling import Completion, Prompt, SamplingConfig, SamplingError, cut

LENGTH = 4096  # most tokens of prompt and completion, unless `max_model_len` says otherwise


@dataclass(frozen=True)
class Engine(LanguageModel):
    """A model in vLLM: `model` is a `vllm.LLM`, and there are no weights to train or to read logits from."""

    generation: object | None = None  # the model's generation configuration, if it has one

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end a completion."""
        return models.end_ids(self.generation, self.tokenizer)


def load(name_or_path: str, dtype: str = "auto", device: str = "auto", **options) -> Engine:
    """`models.load` into vLLM: the same names, dtypes and fingerprints.

    `options` go to `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`, ...), and as a part
    of `models.LanguageModel.backend` into every record, but for the share of memory: draws of a quantized engine are
    not those of another.

    Raises
    ------
    ModelError : vLLM is not installed or built for another device, the model cannot be found (or, when it is needed,
        loaded), or a single device of several is asked for.
    """
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise ModelError(
            f"backend 'vllm' needs vLLM, which cannot be imported here ({error}); install it in an environment of "
            "its own (requirements-vllm.txt), or use backend='transformers'"
        ) from error
    from transformers import AutoConfig, GenerationConfig

    where = models.resolve_device(device)
    if where.index is not None:
        raise ModelError(
            f"backend 'vllm' takes its devices from CUDA_VISIBLE_DEVICES; set that instead of {device!r}"
        )
    if where.type != current_platform.device_type:
        raise ModelError(
            f"the vLLM installed here runs on {current_platform.device_type!r}, not on {where.type!r}; use "
            f"device={current_platform.device_type!r}, or install the build for {where.type!r}"
        )
    torch_dtype = models.resolve_dtype(dtype, where)
    try:
        given = {name: value for name, value in options.items() if name != "gpu_memory_utilization"}
        given = json.dumps(given, sort_keys=True) if given else ""
    except TypeError as error:
        raise ModelError(
            f"options {options} cannot be told in a record ({error}); give text, numbers, lists"
        ) from error
    source, revision = models.find(name_or_path)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False).get_text_config()
    except (OSError, ValueError) as error:
        raise models.not_found(name_or_path, error) from error
    commit = models.commit_of(source, revision)
    try:
        generation = GenerationConfig.from_pretrained(source, revision=commit)
    except OSError:
        generation = None
    length = options.pop("max_model_len", min(getattr(config, "max_position_embeddings", LENGTH), LENGTH))
    if where.type == "cpu":  # a prompt in parts would rewind its generator, which vLLM cannot do on a CPU
        whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(length, 2048)}
        options = {**whole, "gpu_memory_utilization": 0.5, **options}  # of the machine's memory, which others use too

    def read_model():
        try:
            return vllm.LLM(
                model=source,
                revision=commit,
                tokenizer_revision=commit,
                dtype=models.dtype_name(torch_dtype),
                load_format="safetensors",
                trust_remote_code=False,
                generation_config="vllm",  # no top-k or top-p from the model's own defaults
                logprobs_mode="processed_logprobs",  # of the distribution that is drawn from
                max_model_len=length,
                **options,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"vLLM could not load {name_or_path!r} as {torch_dtype}: {error}") from error

    return Engine(
        name_or_path,
        models.fingerprint(source, revision),
        models.dtype_name(torch_dtype),
        where,
        read_model,
        lambda: models.tokenizer(source, commit),
        f"vllm {vllm.__version__} {given}".strip(),
        generation,
    )


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
                confidence=sum(math.exp(top) for _, top in steps) / len(ids),
            )
        )
    return sorted(completions, key=lambda c: (-c.count, -c.logprob, c.token_ids))
