"""Runner: notebooks through papermill, with their parameters checked before anything starts."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NamedTuple

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from traitlets import default

from calib_utils import crossing, home, storage
from calib_utils.config import STAGED, FolderConfig, check_names, profile_parameters
from calib_utils.errors import ConfigError, RunError
from calib_utils.home import ROOT
from calib_utils.models import threads
from calib_utils.records import shipped
from calib_utils.running import manifest
from calib_utils.studies.parameters import STUDIES

# jsonschema, on which papermill rests, would build grammars of internationalized addresses: 1.5 s a process.
sys.modules.setdefault("rfc3987_syntax", None)
NOTEBOOKS = ROOT / "notebooks"
CACHED, RESUMED, ANEW = "from cache", "goes on", "anew"
COMPLETE = "complete"
_COMPUTED = {".parquet", ".table", ".json"}  # records, measurements, trained stages
_COMPLETION = "CALIB_UTILS_COMPLETION"
_OF_NUMBERS = ("device", "processor", "threads", "threads_by")  # of the machine, what decides the last digits
_HARMLESS = ("device", "max_rows", "runs")  # with these a run is still the standard one of its profile


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


@dataclass(frozen=True)
class Outcome:
    """What a run left: the executed notebook, its figures, and the seconds it took."""

    notebook: str
    executed: Path
    figures: Path
    seconds: float


class Plan(NamedTuple):
    """CACHED, RESUMED or ANEW; the seconds that the last run took which was anew, if known; the last manifest."""

    how: str
    seconds_anew: float | None
    last: dict


def find_notebooks(only: list[str] | None = None) -> list[Path]:
    """The notebooks in order, or those whose name begins with one of `only`.

    Raises ConfigError for no match, and where there are no notebooks at all.
    """
    every = sorted(NOTEBOOKS.glob(home.NOTEBOOK_NAMES))
    if not every:
        raise ConfigError(home.nothing_found())
    chosen = []
    for wanted in only or [""]:
        found = [path for path in every if path.stem.startswith(wanted)]
        if not found:
            raise ConfigError(f"no notebook begins with {wanted!r}; there are {[path.stem for path in every]}")
        chosen += found
    return sorted(set(chosen))


def study(notebook: Path) -> type[FolderConfig]:
    """What declares the parameters of a notebook: its row in `STUDIES`, or those that every notebook has."""
    return STUDIES.get(notebook.stem, FolderConfig)


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
    """What a notebook will be given: the profile's parameters, the overrides, and where figures go.

    Raises ConfigError, before anything starts, for a parameter that is unknown, of a wrong type or out of range.
    """
    if overrides.get("profile", profile) != profile:  # its sizes would be those of the other one
        raise ConfigError(f"profile is {profile!r} and {overrides['profile']!r}; choose it with --profile alone")
    declared = study(notebook).model_fields
    parameters = {**profile_parameters(profile, notebook.stem, declared=declared), **overrides}
    parameters.setdefault("figures", destination(profile, overrides)[0])
    check_names(f"{notebook.name} has no parameter", parameters, declared)
    study(notebook).checked(parameters)
    return parameters


def assign(notebooks: list[Path], overrides: Mapping[str, object]) -> dict[Path, dict[str, object]]:
    """Each override for the notebooks that declare it; ConfigError for one that none of them declares."""
    declared = {notebook: study(notebook).model_fields for notebook in notebooks}
    check_names("no chosen notebook has a parameter", overrides, set().union(*declared.values()))
    return {path: {n: v for n, v in overrides.items() if n in names} for path, names in declared.items()}


def destination(profile: str, overrides: Mapping[str, object]) -> tuple[str, Path]:
    """Where a run's figures go, from the project's root, and the folder of its executed notebooks.

    Only the standard run, profile `cpu` as it is, delivers to `figures/`. A run with other parameters gets a folder
    of its own, named by them: it never replaces what the standard run of its profile made.
    """
    changed = {name: value for name, value in overrides.items() if name not in _HARMLESS}
    if changed:
        told = json.dumps([profile, changed], sort_keys=True, default=repr)
        folder = f"runs/custom/{storage.text_digest(told, 8)}"
        return str(changed.get("figures", f"{folder}/figures")), ROOT / folder / "notebooks"
    return "figures" if profile == "cpu" else f"runs/{profile}/figures", ROOT / "runs" / "notebooks" / profile


def run(
    notebook: Path,
    profile: str,
    overrides: Mapping[str, object],
    output: Path | None = None,
    chosen: threads.Choice | None = None,
) -> Outcome:
    """Execute one notebook and publish its figures when its last cell has written the completion file.

    Until then everything is in `output`/running: a run that fails or is stopped replaces nothing. It leaves
    ``NAME.failed.ipynb`` and ``NN_manifest.failed.json`` in `output`, which the next success removes. A second run of
    the same notebook with the same `output` or the same figures waits for the first one, and finds what that left.
    The kernel gets the threads that were `chosen` (by default `threads.choose`), and the manifest tells why.

    Raises
    ------
    ConfigError : a parameter is unknown, of the wrong type or out of range; nothing was started.
    RunError : a cell failed, the kernel died or was stopped, or the notebook ended early.
    """
    parameters = parameters_of(notebook, profile, overrides)
    output = (output or destination(profile, overrides)[1]).resolve()
    full = resolved(notebook, parameters)
    target = (ROOT / full["figures"]).resolve()
    with contextlib.ExitStack() as stack:
        for folder in sorted({output, target}):
            waiting = f"{notebook.stem}: another run works in {folder}; waiting for it"
            stack.enter_context(storage.lock(folder / f".{notebook.stem}", waiting, folder))
        known = plan(notebook, profile, overrides, output)
        about = {
            "notebook": notebook.stem,
            "profile": profile,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **home.of_code(),
            "digest": manifest.digest(notebook),
            "parameters": full,
            "data": manifest.of_data(full),
            "versions": manifest.of_environment(),
            "state": "running",
            "seconds_anew": known.seconds_anew,
        }
        chosen = chosen or threads.choose()
        about["threads_by"] = chosen.because
        started = time.monotonic()
        work = output / "running" / notebook.stem
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        manifest.write(manifest_path(notebook, work), about)
        failed = output / f"{notebook.stem}.failed.ipynb", manifest_path(notebook, output, ".failed")
        try:
            told = _execute(notebook, parameters, work, failed[0], chosen.threads)
            about |= told
            if known.how == CACHED:  # the numbers are still those of the threads and the processor that made them
                about |= {name: known.last[name] for name in _OF_NUMBERS if name in known.last}
            seconds = about["seconds"] = round(time.monotonic() - started, 1)
            if known.how == ANEW and (_COMPUTED & told["written"].keys() or known.seconds_anew is None):
                about["seconds_anew"] = seconds
            times = [round(seconds or 0.0, 1) for seconds in manifest.cell_times(work / notebook.name)]
            about["cells"] = times if known.how == ANEW else known.last.get("cells", [])
            about["state"] = COMPLETE
            about = manifest.publish(work / "figures", target, about)
            os.replace(work / notebook.name, output / notebook.name)
            manifest.write(manifest_path(notebook, output), about)
        except BaseException as error:
            stopped = f"stopped by {type(error).__name__}: {error}"
            about["state"] = str(error).splitlines()[0] if isinstance(error, RunError) else stopped
            about["seconds"] = round(time.monotonic() - started, 1)
            try:
                manifest.write(failed[1], about)
                if (work / notebook.name).exists():
                    os.replace(work / notebook.name, failed[0])
            except OSError as another:
                error.add_note(str(another))  # the run's own error stays the one that is reported
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for path in failed:
            path.unlink(missing_ok=True)
        return Outcome(notebook.stem, output / notebook.name, target, seconds)


def _execute(notebook: Path, parameters: Mapping[str, object], work: Path, failed: Path, n_threads: int) -> dict:
    """Run the notebook in `work`, with `n_threads` in its kernel; returns `manifest.of_process` of its last cell.

    `failed` is where the executed notebook will be found if this raises.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    completion = work / "completion.json"
    try:
        with (
            storage.writing(failed),
            # The name of a socket has room for about 100 characters.
            tempfile.TemporaryDirectory(dir="/tmp" if len(tempfile.gettempdir()) > 75 else None) as scratch,
            variables(
                {
                    **home.environment(),
                    _COMPLETION: str(completion),
                    STAGED: str(work / "figures"),
                    threads.VARIABLE: str(n_threads),
                    "TQDM_MININTERVAL": "30",
                    "IPYTHONDIR": scratch,  # a kernel leaves its profile and its sockets behind nowhere else
                    "JUPYTER_RUNTIME_DIR": scratch,
                }
            ),
        ):
            papermill.execute_notebook(
                str(notebook),
                str(work / notebook.name),
                parameters,
                cwd=str(ROOT),
                progress_bar=False,
                kernel_manager_class="calib_utils.running.runner.IPCKernelManager",
            )
    except DeadKernelError as error:
        raise RunError(
            f"the kernel of {notebook.stem} was ended from outside: stopped by hand, or by the system for want of "
            "memory (then lower max_rows, or run fewer notebooks at once). Records and trained stages are kept: the "
            f"same command goes on from there. The executed notebook is {failed}"
        ) from error
    except papermill.exceptions.PapermillExecutionError as error:
        raise RunError(
            f"{notebook.stem} failed in cell {error.cell_index}: {error.ename}: {error.evalue}\n"
            f"the executed notebook is {failed}"
        ) from error
    if not completion.exists():
        raise RunError(f"{notebook.stem} ended without its last cell; the executed notebook is {failed}")
    return json.loads(completion.read_text(encoding="utf-8"))


def manifest_path(notebook: Path, folder: Path, kind: str = "") -> Path:
    """`NN_manifest.json` of a notebook in a folder; `kind` ".failed" is that of a run that did not end well."""
    return folder / f"{notebook.stem[:2]}_manifest{kind}.json"


def resolved(notebook: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Every parameter of a notebook: its own defaults, and what is given."""
    return {**study(notebook).defaults(), **parameters}


def plan(notebook: Path, profile: str, overrides: Mapping[str, object], output: Path | None = None) -> Plan:
    """What a run would do, by the manifests that earlier ones left in `output` and in the shipped figures.

    CACHED: an earlier run had the same code, versions, data and parameters, and its records are still there. RESUMED:
    so it had, and failed or was stopped.
    """
    parameters = resolved(notebook, parameters_of(notebook, profile, overrides))
    output = output or destination(profile, overrides)[1]
    paths = [
        manifest_path(notebook, output),
        manifest_path(notebook, output / "running" / notebook.stem),  # killed
        manifest_path(notebook, output, ".failed"),
    ]
    here = [found for found in map(manifest.read, paths) if found and found["parameters"] == parameters]
    for found in here:
        now = (manifest.digest(notebook), manifest.of_environment(), manifest.of_data(parameters))
        same = now == tuple(found[name] for name in ("digest", "versions", "data"))
        if same and (not found.get("models") or (ROOT / parameters["runs"] / "records").is_dir()):
            return Plan(CACHED if found["state"] == COMPLETE else RESUMED, found.get("seconds_anew"), found)
    shipped = manifest.read(manifest_path(notebook, ROOT / "figures"))
    known = [*here, shipped] if shipped and shipped["parameters"] == parameters else here
    return Plan(ANEW, next((found.get("seconds_anew") for found in known), None), {})


def complete(notebook: str) -> None:
    """Call in a notebook's last cell: ships its records, and tells the runner that every cell before it has run."""
    path = os.environ.get(_COMPLETION)
    if path:
        about = manifest.of_process()
        shipped.write(Path(os.environ[STAGED]) / shipped.FOLDER, notebook, crossing.noted())
        manifest.write(Path(path), {"notebook": notebook, **about})


@contextlib.contextmanager
def variables(values: Mapping[str, str]):
    """Within it environment variables have these values."""
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
