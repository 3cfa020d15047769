"""Manifest: what made a run. Code, parameters, versions, models, data, device, time and memory as one JSON file."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import sys
from pathlib import Path

import pandas as pd

from calib_utils import home, storage
from calib_utils.data import natural_questions
from calib_utils.errors import ConfigError
from calib_utils.home import ROOT

_DISTRIBUTION = "calib-utils"
_SHOWN = "profile started commit dirty device threads seconds_anew peak_gib".split()  # in the overview of all runs
_MAXRSS = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere, in GiB


def of_process() -> dict:
    """What the running process used and wrote: models, device, threads, peak memory in GiB, files by kind."""
    torch, used = sys.modules.get("torch"), []  # a notebook that only reads has not loaded it
    if torch:
        from calib_utils import models

        used = models.loaded()
    cuda = torch and (torch.cuda.is_initialized() or any(about["device"] == "cuda" for about in used))
    return {
        "models": sorted(map(_placed, used), key=lambda about: (about["model"], about["fingerprint"])),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processor": _processor(),
        "threads": torch.get_num_threads() if torch else 1,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS, 2),
        "peak_device_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "written": dict(storage.written),
    }


def _cpuinfo(name: str) -> str | None:
    """What Linux tells about the first core under `name`; None elsewhere."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{name}\s*:\s*(.+)$", about, re.M)
    return found and found[1]


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor()


def native_bfloat16() -> bool:
    """Whether `models.best_cpu_dtype` is bfloat16 here, asked of the system: without torch, which takes seconds."""
    return not {"avx512_bf16", "amx_tile"}.isdisjoint((_cpuinfo("flags") or "").split())


def _placed(about: dict) -> dict:
    """A folder of the project by its path from the project's root: the same on every machine."""
    path = Path(about["model"])
    return {**about, "model": path.relative_to(ROOT).as_posix()} if path.is_relative_to(ROOT) else about


@functools.cache
def of_environment() -> dict:
    """Versions of Python and of every pinned package; of an installed wheel, those that it declares."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _dependencies()}}


def _dependencies() -> list[str]:
    if clone := home.checkout():
        return re.findall(r"^([\w-]+)==", (clone / "requirements.txt").read_text(encoding="utf-8"), re.M)
    declared = importlib.metadata.requires(_DISTRIBUTION)
    return [_DISTRIBUTION, *dict.fromkeys(re.match(r"[\w-]+", one)[0] for one in declared)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def of_data(parameters: dict) -> dict:
    """SHA-256 of the embedded facts and of other data that the parameters name; ConfigError if it is not there."""
    named = {"facts": home.PACKAGE / "data" / "facts" / "facts.jsonl"}
    if natural_questions.NAME in parameters.values():
        named[natural_questions.NAME] = natural_questions.FILE
    if parameters.get("data_path"):
        named["data_path"] = ROOT / parameters["data_path"]  # as a notebook sees it
        if not named["data_path"].is_file():
            raise ConfigError(f"data_path is {parameters['data_path']!r}; there is no file {named['data_path']}")
    return {name: storage.file_digest(path) for name, path in named.items()}


def digest(notebook: Path) -> str:
    """Changes when the notebook, the package or a requirement does."""
    kinds = (".py", ".json", ".csv", ".mplstyle")
    package = [path for path in home.PACKAGE.rglob("*") if path.suffix in kinds]
    clone = home.checkout()
    sources = [notebook, *sorted(package), *sorted(clone.glob("requirements*.txt") if clone else ())]
    parts = [f"{path.name} {storage.file_digest(path)}" for path in sources]
    return storage.text_digest("\n".join(parts))


def cell_times(executed: Path) -> list[float | None]:
    """Seconds of every code cell of a notebook that papermill executes, None for one that has not run."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    except (OSError, json.JSONDecodeError):  # not there yet, or half written
        return []
    about = [cell["metadata"].get("papermill", {}) for cell in cells if cell["cell_type"] == "code"]
    return [one.get("duration") if one.get("status") == "completed" else None for one in about]


def write(path: Path, manifest: dict) -> None:
    """The manifest as JSON under its name at once or not at all."""
    storage.publish(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict | None:
    """The manifest, or None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def table(folder: Path, without: str = "") -> pd.DataFrame:
    """What made the figures in a folder: a row for every notebook's manifest there, but that of `without`."""
    found = [read(path) for path in sorted(Path(folder).glob("[0-9][0-9]_manifest.json"))]
    rows = {made["notebook"]: made for made in found if made and made["notebook"] != without}
    return pd.DataFrame(rows).T.reindex(columns=_SHOWN)


def sha256(path: Path) -> str | None:
    """SHA-256 of a file, None if it is not there."""
    return storage.file_digest(path) if path.is_file() else None


def publish(staged: Path, target: Path, manifest: dict) -> dict:
    """Put the figures and claims that a notebook wrote into `staged` in place of its earlier ones in `target`.

    Returns the manifest, written last, with the SHA-256 of every file. Files that the manifest before it names and
    this run did not make are removed. Whatever ends this half-way, a manifest of a complete run describes its
    figures: copies are made before anything is replaced, and meanwhile the state is "publishing".
    """
    from calib_utils import claims

    path = target / f"{manifest['notebook'][:2]}_manifest.json"
    before = read(path) or {}
    made = {
        file.relative_to(staged).as_posix(): sha256(file)
        for file in sorted(staged.rglob("*"))
        if file.is_file() and file.name not in claims.FILES and not file.name.startswith(".")
    }
    copies = {name: (target / name).with_name(f".{Path(name).name}.tmp") for name in made}
    try:
        with storage.writing(target):
            for name, copy in copies.items():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(staged / name, copy)
            write(path, {**manifest, "state": "publishing", "files": {**before.get("files", {}), **made}})
            for name, copy in copies.items():
                os.replace(copy, target / name)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
    for name in before.get("files", {}).keys() - made.keys():
        (target / name).unlink(missing_ok=True)
    rows = claims.read_claims(staged)
    if rows or any(row["notebook"] == manifest["notebook"] for row in claims.read_claims(target)):
        claims.record_claims(rows, target, replacing=manifest["notebook"])
    manifest = {**manifest, "files": made}
    write(path, manifest)
    return manifest
