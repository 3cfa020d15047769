"""Runner: notebooks through papermill, with their parameters checked before anything starts."""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager

from calib_utils.config import ROOT, ConfigError, profile_parameters

NOTEBOOKS = ROOT / "notebooks"
_COMPLETION = "CALIB_UTILS_COMPLETION"
_TYPES = {"str": str, "int": int, "float": (float, int), "bool": bool, "list": list}


class IPCKernelManager(AsyncKernelManager):
    """Talks to the kernel over sockets in the file system: free of port races, unreachable from the network."""

    transport = "ipc"


class RunError(RuntimeError):
    """A notebook failed; the message names the cell's error and the executed copy."""


@dataclass(frozen=True)
class Outcome:
    """What a run left: the executed notebook and the seconds it took."""

    notebook: str
    executed: Path
    seconds: float


def find_notebooks(only: list[str] | None = None) -> list[Path]:
    """The notebooks in order, or those whose name begins with one of `only`; raises ConfigError for no match."""
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    chosen = []
    for wanted in only or [""]:
        found = [path for path in every if path.stem.startswith(wanted)]
        if not found:
            raise ConfigError(f"no notebook begins with {wanted!r}; there are {[path.stem for path in every]}")
        chosen += found
    return sorted(set(chosen))


def check_parameters(notebook: Path, parameters: Mapping[str, object]) -> None:
    """Raise ConfigError for a parameter that the notebook does not declare, or of another type than declared.

    papermill itself only warns about an unknown name.
    """
    from papermill import inspect_notebook

    declared = inspect_notebook(str(notebook))
    for name, value in parameters.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it declares {sorted(declared)}"
            raise ConfigError(f"{notebook.name} has no parameter {name!r}{hint}")
        kind = declared[name]["inferred_type_name"].partition("[")[0]
        expected = _TYPES.get(kind)
        if expected and (not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool")):
            raise ConfigError(
                f"{notebook.name}: parameter {name!r} is declared {kind}, got {value!r} ({type(value).__name__}); "
                "in YAML write numbers as 1.0e-4 and quote words such as 'no'"
            )


def parse_overrides(pairs: list[str]) -> dict[str, object]:
    """`["n_questions=40", "model=gpt2"]` as a dictionary; values are Python literals or else text."""
    parameters: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"override {pair!r} must look like name=value")
        try:
            parameters[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parameters[name] = text
    return parameters


def parameters_of(notebook: Path, profile: str, overrides: Mapping[str, object]) -> dict[str, object]:
    """What a notebook will be given: the profile's parameters and the overrides, checked."""
    parameters = {**profile_parameters(profile, notebook.stem), **overrides}
    check_parameters(notebook, parameters)
    return parameters


def run(notebook: Path, profile: str, overrides: Mapping[str, object], output: Path | None = None) -> Outcome:
    """Execute one notebook and return when its last cell has written the completion file.

    Raises
    ------
    ConfigError : a parameter is unknown or of the wrong type; nothing was started.
    RunError : a cell failed, or the notebook ended early.
    """
    import papermill

    parameters = parameters_of(notebook, profile, overrides)
    output = output or ROOT / "runs" / "notebooks" / profile
    output.mkdir(parents=True, exist_ok=True)
    executed, completion = output / notebook.name, output / f"{notebook.stem}.completion.json"
    completion.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        with _environment({_COMPLETION: str(completion), "TQDM_MININTERVAL": "30"}):
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters,
                cwd=str(ROOT),
                progress_bar=False,
                kernel_manager_class="calib_utils.runner.IPCKernelManager",
            )
    except papermill.exceptions.PapermillExecutionError as error:
        raise RunError(
            f"{notebook.stem} failed in cell {error.cell_index}: {error.ename}: {error.evalue}\n"
            f"the executed notebook is {executed}"
        ) from error
    if not completion.exists():
        raise RunError(f"{notebook.stem} ended without its last cell; the executed notebook is {executed}")
    return Outcome(notebook.stem, executed, time.monotonic() - started)


def complete(notebook: str) -> None:
    """Call in a notebook's last cell: tells the runner that every cell before it has run."""
    path = os.environ.get(_COMPLETION)
    if path:
        Path(path).write_text(json.dumps({"notebook": notebook}), encoding="utf-8")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
