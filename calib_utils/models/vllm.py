"""Models in vLLM's engine, for sampling only.

vLLM is optional and wants an environment of its own: requirements-vllm.txt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from calib_utils.errors import ModelError
from calib_utils.models.device import dtype_name, resolve_device, resolve_dtype
from calib_utils.models.identity import commit_of, find, fingerprint, not_found, tokenizer
from calib_utils.models.language_model import LanguageModel, end_ids

LENGTH = 4096  # most tokens of prompt and completion, unless `max_model_len` says otherwise


@dataclass(frozen=True)
class Engine(LanguageModel):
    """A model in vLLM: `model` is a `vllm.LLM`, and there are no weights to train or to read logits from."""

    generation: object | None = None  # the model's generation configuration, if it has one

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end a completion."""
        return end_ids(self.generation, self.tokenizer)


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

    where = resolve_device(device)
    if where.index is not None:
        raise ModelError(
            f"backend 'vllm' takes its devices from CUDA_VISIBLE_DEVICES; set that instead of {device!r}"
        )
    if where.type != current_platform.device_type:
        raise ModelError(
            f"the vLLM installed here runs on {current_platform.device_type!r}, not on {where.type!r}; use "
            f"device={current_platform.device_type!r}, or install the build for {where.type!r}"
        )
    torch_dtype = resolve_dtype(dtype, where)
    try:
        given = {name: value for name, value in options.items() if name != "gpu_memory_utilization"}
        given = json.dumps(given, sort_keys=True) if given else ""
    except TypeError as error:
        raise ModelError(
            f"options {options} cannot be told in a record ({error}); give text, numbers, lists"
        ) from error
    source, revision = find(name_or_path)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False).get_text_config()
    except (OSError, ValueError) as error:
        raise not_found(name_or_path, error) from error
    commit = commit_of(source, revision)
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
                dtype=dtype_name(torch_dtype),
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
        fingerprint(source, revision),
        dtype_name(torch_dtype),
        where,
        read_model,
        lambda: tokenizer(source, commit),
        f"vllm {vllm.__version__} {given}".strip(),
        generation,
    )
