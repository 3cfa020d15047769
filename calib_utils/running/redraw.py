"""Redraw: figures and claims of notebooks from shipped records, in processes without kernels, models or torch.

The notebooks themselves are executed, cell by cell; what would compute with a model reads (`crossing`).
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from calib_utils import claims, crossing, storage
from calib_utils.config import STAGED
from calib_utils.errors import CalibError
from calib_utils.records import shipped
from calib_utils.running import manifest, runner


@dataclass(frozen=True)
class Redrawn:
    """A notebook that was redrawn.

    Attributes
    ----------
    files : how many figures and tables it made.
    different : names of those that are not byte for byte what the run made; "claims.csv" for its claims.
    error : what went wrong, empty if nothing.
    """

    notebook: str
    seconds: float
    files: int = 0
    different: tuple[str, ...] = ()
    error: str = ""


def shipped_of(notebook: Path, figures: Path) -> list[Path]:
    """Files with the records of a notebook beside its figures."""
    return sorted((figures / shipped.FOLDER).glob(f"{notebook.stem[:2]}*.parquet"))


def several(described: Mapping[Path, dict], figures: Path, target: Path, jobs: int) -> Iterator[Redrawn]:
    """Redraw notebooks into `target`, which is emptied, `jobs` at once; gives each as it is finished.

    `described` holds their manifests, `figures` their figures, records, and the claims of all.
    """
    shutil.rmtree(target, ignore_errors=True)
    storage.check_folder(target)
    largest = sorted(described, key=lambda path: -sum(file.stat().st_size for file in shipped_of(path, figures)))
    with ProcessPoolExecutor(min(jobs, len(described))) as pool:
        started = [pool.submit(one, path, described[path], figures, target) for path in largest]
        for done in as_completed(started):
            yield done.result()


def one(notebook: Path, about: Mapping, figures: Path, target: Path) -> Redrawn:
    """Redraw one notebook into `target`, by the parameters in its manifest, and compare with what its run made."""
    began = time.monotonic()
    try:
        with (
            crossing.reading_from(shipped.load(figures / shipped.FOLDER, notebook.stem)),
            runner.variables({STAGED: str(target)}),
        ):
            _execute(notebook, {**about["parameters"], "figures": str(figures)})
    except (CalibError, ModuleNotFoundError) as error:
        return Redrawn(notebook.stem, time.monotonic() - began, error=f"{notebook.stem}: {error}")
    made, wrong = compare(notebook, about, figures, target)
    return Redrawn(notebook.stem, time.monotonic() - began, made, tuple(wrong))


def _execute(notebook: Path, parameters: Mapping[str, object]) -> None:
    """Run a notebook's cells in a namespace of their own; what they show is not shown."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    given = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())])
    namespace: dict = {"__name__": "__main__", "In": []}  # where a notebook's configuration looks for its parameters
    with contextlib.redirect_stdout(io.StringIO()):
        for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] != "code":
                continue
            sources = ["".join(cell["source"])]
            if "parameters" in cell["metadata"].get("tags", []):
                sources.append(given)
            for source in sources:
                namespace["In"].append(source)
                exec(compile(source, f"{notebook.name}, cell {number}", "exec"), namespace)
            pyplot.close("all")  # as a kernel does after every cell


def compare(notebook: Path, about: Mapping, figures: Path, target: Path) -> tuple[int, list[str]]:
    """How many files of a notebook lie in `target`, and the names of those that are not as its manifest says.

    Claims are the same if all but the commits in their rows is.
    """
    number = notebook.stem[:2]
    expected = {name: digest for name, digest in about["files"].items() if Path(name).parent.name != shipped.FOLDER}
    made = {path.name: manifest.sha256(path) for path in target.glob(f"{number}_*") if path.is_file()}
    wrong = sorted(name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name))
    before, after = (_results(folder, notebook.stem) for folder in (figures, target))
    return len(made), wrong + ([] if before.equals(after) else ["claims.csv"])


def _results(folder: Path, notebook: str) -> pd.DataFrame:
    rows = [row for row in claims.read_claims(folder) if row["notebook"] == notebook]
    return pd.DataFrame(rows).drop(columns=list(claims.OF_A_RUN), errors="ignore")
