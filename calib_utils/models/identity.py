"""What a name stands for, and the fingerprint that tells one model from another."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import lru_cache
from pathlib import Path

from calib_utils import crossing
from calib_utils.errors import ModelError
from calib_utils.models.bundled import BUNDLED, bundled_model_dir, gguf_model_dir
from calib_utils.models.language_model import LanguageModel
from calib_utils.models.told import facts
from calib_utils.storage import file_digest, text_digest

_LOADED: dict[tuple[str, str, str], dict[str, str]] = {}


def noted(lm: LanguageModel) -> LanguageModel:
    """The model, remembered for `loaded`."""
    _LOADED[lm.name, lm.fingerprint, lm.dtype] = describe(lm)
    return lm


def loaded() -> list[dict[str, str]]:
    """`describe` of every model that this process has loaded, without those that were trained here."""
    return list(_LOADED.values())


def find(name_or_path: str) -> tuple[str, str]:
    """(folder or hub id, revision) that a name stands for."""
    if name_or_path in BUNDLED:
        return str(bundled_model_dir(name_or_path)), "main"
    if name_or_path.endswith(".gguf"):
        return str(gguf_model_dir(Path(name_or_path))), "main"
    if Path(name_or_path).is_dir():
        return name_or_path, "main"
    model, _, revision = name_or_path.partition("@")
    if revision and Path(model).is_dir():
        return str(Path(model) / revision), "main"
    return model, revision or "main"


def last_change(source: str | Path) -> int:
    """When a file of a local folder last changed; 0 for a hub id."""
    return max((file.stat().st_mtime_ns for file in Path(source).glob("*")), default=0)


def commit_of(source: str, revision: str) -> str:
    """The commit that a hub id's revision stood for when its configuration was read; of a folder the revision."""
    if Path(source).is_dir():
        return revision
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json", revision=revision)
    if not isinstance(config, str):
        raise ModelError(f"model {source!r} has no resolved commit; download it to a folder and load that")
    return Path(config).parent.name  # of the cache's layout: snapshots/COMMIT/config.json


def fingerprint(source: str, revision: str) -> str:
    """Folder: hash of the files' contents; hub id: the resolved commit."""
    folder = Path(source)
    if not folder.is_dir():
        return text_digest(f"{source}\n{commit_of(source, revision)}")
    conversion = folder / "conversion.json"
    if conversion.exists():  # our own conversion: checked when it was made
        return text_digest(conversion.read_text())
    return digest_folder(folder)


def digest_folder(folder: Path, pattern: str = "*") -> str:
    """Hash of the names and contents of the files in a folder that match `pattern`."""
    found = sorted(file for file in folder.glob(pattern) if file.is_file())
    return text_digest("\n".join(f"{file.name} {file_digest(file)}" for file in found))


version = lru_cache(importlib.metadata.version)  # reads a file every time


def describe(lm: LanguageModel) -> dict[str, str]:
    """Provenance of a loaded model: name, fingerprint, dtype, device and library versions.

    Where shipped records are read, that of the run which made them.
    """
    if crossing.reading():
        return {} if lm.origin.stage else facts("model", lm.origin)
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


def not_found(name_or_path: str, reason: object) -> ModelError:
    """The error for a name that stands for no usable model."""
    return ModelError(
        f"model {name_or_path!r} could not be loaded: it is neither one of {list(BUNDLED)}, nor a folder with "
        f"config.json, tokenizer and *.safetensors, nor a reachable hub id ({reason})"
    )


def tokenizer(source: str, revision: str):
    """The tokenizer of a folder or hub id, one object for all loads of the same files."""
    return _tokenizer(source, revision, last_change(source))


@lru_cache(maxsize=4)
def _tokenizer(source: str, revision: str, changed: int):
    # Kept: parsing a large one takes most of a load.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
