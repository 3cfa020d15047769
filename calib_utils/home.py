"""Where the project's files are: the package, the clone and the commit it may lie in, the folder of `notebooks/`."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
NOTEBOOK_NAMES = "[0-9][0-9]_*.ipynb"
_VARIABLE = "CALIB_UTILS_HOME"
_CODE = ("calib_utils", "notebooks", ":(glob)requirements*.txt", "pyproject.toml")


def checkout() -> Path | None:
    """The clone that the package lies in, installed from there with `-e` or not; None for an installed wheel."""
    folder = PACKAGE.parent
    return folder if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file() else None


def home() -> Path:
    """Where notebooks are read and figures and runs are written.

    `$CALIB_UTILS_HOME` if set; else the clone that the package lies in; else the current folder or its nearest parent
    with notebooks; else the current folder. Never the folder of installed packages.
    """
    if os.environ.get(_VARIABLE):
        return Path(os.environ[_VARIABLE]).expanduser().resolve()
    if clone := checkout():
        return clone
    here = Path.cwd()
    with_notebooks = (folder for folder in (here, *here.parents) if any((folder / "notebooks").glob(NOTEBOOK_NAMES)))
    return next(with_notebooks, here)


ROOT = home()


def nothing_found() -> str:
    """What to tell a user when `ROOT` holds no notebooks: where they were looked for, and what to do."""
    return (
        f"there are no notebooks (NN_name.ipynb) in {ROOT / 'notebooks'}. They are looked for in ${_VARIABLE} "
        f"({os.environ.get(_VARIABLE) or 'not set'}), else in the clone that the package lies in "
        f"({checkout() or 'installed without one'}), else in the current folder and its parents. Run from a folder "
        f"that holds notebooks/, or set {_VARIABLE} to it; a clone of the project has them, a wheel does not"
    )


def environment() -> dict[str, str]:
    """What a process started elsewhere needs to use this home and, where it lies in a clone, this package."""
    paths = [str(checkout() or ""), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return {_VARIABLE: str(ROOT), **({"PYTHONPATH": path} if path else {})}


def git(*words: str) -> str | None:
    """What git answers in the clone that the package lies in; None without a clone, git or a history."""
    if (clone := checkout()) is None:
        return None
    try:
        done = subprocess.run(["git", *words], cwd=clone, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def of_code() -> dict:
    """Git commit and whether code, notebooks or requirements differ from it; None for an installed wheel.

    The repository that a user keeps notebooks in says nothing about this code.
    """
    changes = git("status", "--porcelain", "--", *_CODE)
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
