"""Runner: notebooks through papermill, with their parameters checked before anything starts."""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NamedTuple

from filelock import FileLock, Timeout
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from traitlets import default

from calib_utils import files, manifest
from calib_utils.config import ROOT, ConfigError, profile_parameters

# jsonschema, on which papermill rests, would build grammars of internationalized addresses: 1.5 s a process.
sys.modules.setdefault("rfc3987_syntax", None)

NOTEBOOKS = ROOT / "notebooks"
CACHED, RESUMED, ANEW = "from cache", "goes on", "anew"
COMPLETE = "complete"
_COMPUTED = {".parquet", ".table", ".json"}  # records, measurements, trained stages
_COMPLETION = "CALIB_UTILS_COMPLETION"
_TYPES = {"str": str, "int": int, "float": (float, int), "bool": bool, "list": list}


class IPCKernelManager(AsyncKernelManager):
    """Talks to the kernel over sockets in a folder of its own: free of port races, unreachable from the network."""

    transport = "ipc"
    inherited: ClassVar[tuple[int, ...]] = ()  # files that a kernel keeps open too, with the locks on them
    running: ClassVar[set[IPCKernelManager]] = set()

    @default("connection_file")
    def _in_the_runtime_folder(self) -> str:
        return os.path.join(jupyter_runtime_dir(), "kernel.json")  # the sockets get its name, and its folder

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options) -> None:
        self.running.add(self)
        await super()._async_launch_kernel(kernel_cmd, pass_fds=self.inherited, **options)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        self.running.discard(self)
        await super()._async_cleanup_resources(restart)

    cleanup_resources = _async_cleanup_resources

    async def _async_interrupt_kernel(self) -> None:
        """Not at the end of a notebook, which is when it would be called: an idle kernel logs it as an error."""

    @classmethod
    def kill(cls) -> None:
        """End every kernel of this process at once, with what it has started; what it computed stays as it is.

        Asked politely it would close its sockets under the cell that is being interrupted, and tell of that.
        """
        for process in [one.provisioner and one.provisioner.process for one in cls.running]:
            if process:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own


class RunError(RuntimeError):
    """A notebook failed; the message names the cell's error and the executed copy."""


@dataclass(frozen=True)
class Outcome:
    """What a run left: the executed notebook and the seconds it took."""

    notebook: str
    executed: Path
    seconds: float


class Plan(NamedTuple):
    """CACHED, RESUMED or ANEW; the seconds that the last run took which was anew, if known; the last manifest."""

    how: str
    seconds_anew: float | None
    last: dict


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
    from papermill import inspect_notebook

    declared = inspect_notebook(str(notebook))
    parameters = {**profile_parameters(profile, notebook.stem, declared=declared), **overrides}
    check_parameters(notebook, parameters)
    return parameters


def assign(notebooks: list[Path], overrides: Mapping[str, object]) -> dict[Path, dict[str, object]]:
    """Each override for the notebooks that declare it; ConfigError for one that none of them declares."""
    from papermill import inspect_notebook

    declared = {notebook: inspect_notebook(str(notebook)) for notebook in notebooks}
    every = sorted(set().union(*declared.values()))
    for name in overrides:
        if name not in every:
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {every}"
            raise ConfigError(f"no chosen notebook has a parameter {name!r}{hint}")
    return {path: {n: v for n, v in overrides.items() if n in names} for path, names in declared.items()}


def run(notebook: Path, profile: str, overrides: Mapping[str, object], output: Path | None = None) -> Outcome:
    """Execute one notebook and return when its last cell has written the completion file.

    A second run of the same notebook with the same `output` or the same figures waits for the first one, and finds
    what that left. The manifest beside the figures says "running" until the run has ended.

    Raises
    ------
    ConfigError : a parameter is unknown or of the wrong type; nothing was started.
    RunError : a cell failed, the kernel died or was stopped, or the notebook ended early.
    """
    parameters = parameters_of(notebook, profile, overrides)
    output = (output or default_output(profile)).resolve()
    full = resolved(notebook, parameters)
    folders = sorted({output, (ROOT / full.get("figures", "figures")).resolve()})
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_alone(folder / f".{notebook.stem}.lock"))
        known = plan(notebook, profile, overrides, output)
        about = {
            "notebook": notebook.stem,
            "profile": profile,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **manifest.of_code(),
            "digest": manifest.digest(notebook),
            "parameters": full,
            "data": manifest.of_data(full),
            "versions": manifest.of_environment(),
            "state": "running",
            "seconds_anew": known.seconds_anew,
        }
        started = time.monotonic()
        _tell(notebook, folders, about)
        try:
            told = _execute(notebook, parameters, output)
        except RunError as error:
            about["state"] = str(error).splitlines()[0]
            raise
        except BaseException as error:
            about["state"] = f"stopped by {type(error).__name__}: {error}"
            raise
        else:
            about |= {"state": COMPLETE, **told}
            if known.how == CACHED:  # the numbers are still those of the threads and the processor that made them
                about |= {name: known.last[name] for name in ("device", "processor", "threads") if name in known.last}
        finally:
            seconds = time.monotonic() - started
            about["seconds"] = round(seconds, 1)
            computed = _COMPUTED & about.get("written", {}).keys() or known.seconds_anew is None
            if about["state"] == COMPLETE and known.how == ANEW and computed:
                about["seconds_anew"] = about["seconds"]
            _tell(notebook, folders, about)
        return Outcome(notebook.stem, output / notebook.name, seconds)


@contextlib.contextmanager
def _alone(path: Path):
    lock = FileLock(path)
    with files.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{path.stem[1:]}: another run works in {path.parent}; waiting for it", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _tell(notebook: Path, folders: list[Path], about: Mapping[str, object]) -> None:
    first = sys.exception()
    for folder in folders:
        try:
            manifest.write(manifest_path(notebook, folder), about)
        except OSError as error:
            if first is None:
                raise
            first.add_note(str(error))  # the run's own error stays the one that is reported


def _execute(notebook: Path, parameters: Mapping[str, object], output: Path) -> dict:
    """Run the notebook; returns what its last cell told (`manifest.of_process`)."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    executed, completion = output / notebook.name, output / f"{notebook.stem}.completion.json"
    completion.unlink(missing_ok=True)
    try:
        with (
            files.writing(executed),
            # The name of a socket has room for about 100 characters.
            tempfile.TemporaryDirectory(dir="/tmp" if len(tempfile.gettempdir()) > 75 else None) as scratch,
            _environment(
                {
                    _COMPLETION: str(completion),
                    "TQDM_MININTERVAL": "30",
                    "IPYTHONDIR": scratch,  # a kernel leaves its profile and its sockets behind nowhere else
                    "JUPYTER_RUNTIME_DIR": scratch,
                }
            ),
        ):
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters,
                cwd=str(ROOT),
                progress_bar=False,
                kernel_manager_class="calib_utils.runner.IPCKernelManager",
            )
    except DeadKernelError as error:
        raise RunError(
            f"the kernel of {notebook.stem} was ended from outside: stopped by hand, or by the system for want of "
            "memory (then lower max_rows, or run fewer notebooks at once). Records and trained stages are kept: the "
            f"same command goes on from there. The executed notebook is {executed}"
        ) from error
    except papermill.exceptions.PapermillExecutionError as error:
        raise RunError(
            f"{notebook.stem} failed in cell {error.cell_index}: {error.ename}: {error.evalue}\n"
            f"the executed notebook is {executed}"
        ) from error
    if not completion.exists():
        raise RunError(f"{notebook.stem} ended without its last cell; the executed notebook is {executed}")
    return json.loads(completion.read_text(encoding="utf-8"))


def default_output(profile: str) -> Path:
    """Where executed notebooks and their manifests go."""
    return ROOT / "runs" / "notebooks" / profile


def manifest_path(notebook: Path, folder: Path) -> Path:
    """`NN_manifest.json` of a notebook in a folder."""
    return folder / f"{notebook.stem[:2]}_manifest.json"


def resolved(notebook: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Every parameter of a notebook: its own defaults, and what is given."""
    from papermill import inspect_notebook

    own = {name: ast.literal_eval(found["default"]) for name, found in inspect_notebook(str(notebook)).items()}
    return {**own, **parameters}


def plan(notebook: Path, profile: str, overrides: Mapping[str, object], output: Path | None = None) -> Plan:
    """What a run would do, by the manifests that earlier ones left in `output` and in the shipped figures.

    CACHED: the last run had the same code, versions, data and parameters, and its records are still there. RESUMED:
    so it had, and was stopped.
    """
    parameters = resolved(notebook, parameters_of(notebook, profile, overrides))
    last = manifest.read(manifest_path(notebook, output or default_output(profile)))
    shipped = manifest.read(manifest_path(notebook, ROOT / "figures"))
    for found in (last, shipped):
        if found and found["parameters"] == parameters:
            now = (manifest.digest(notebook), manifest.of_environment(), manifest.of_data(parameters))
            same = found is last and now == tuple(found[name] for name in ("digest", "versions", "data"))
            same &= not found.get("models") or (ROOT / parameters.get("runs", "") / "records").is_dir()
            how = ANEW if not same else CACHED if found["state"] == COMPLETE else RESUMED
            return Plan(how, found.get("seconds_anew"), found)
    return Plan(ANEW, None, {})


def complete(notebook: str) -> None:
    """Call in a notebook's last cell: tells the runner that every cell before it has run."""
    path = os.environ.get(_COMPLETION)
    if path:
        manifest.write(Path(path), {"notebook": notebook, **manifest.of_process()})


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
