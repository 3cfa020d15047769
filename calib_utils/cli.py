"""Command line: `python -m calib_utils run | verify | models | bench`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from calib_utils.config import PROFILES, ROOT, ConfigError
from calib_utils.data import DataError
from calib_utils.models import ModelError
from calib_utils.sampling import SamplingError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calib_utils", description="Calibration companion")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("run", help="execute notebooks through papermill")
    command.add_argument("--profile", choices=PROFILES, default="cpu", help="sizes (default: cpu)")
    command.add_argument("--only", nargs="+", metavar="NN", help="notebooks by the beginning of their name")
    command.add_argument("-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
    command.add_argument("--output", type=Path, help="folder of executed notebooks (default: runs/notebooks/PROFILE)")
    command.add_argument("--jobs", type=int, help="notebooks run at once (default: one a GPU, or one; two to redraw)")
    command.add_argument("--dry-run", action="store_true", help="say what would run, and stop")
    command.set_defaults(call=_run)

    command = commands.add_parser(
        "verify", help="compute figures and claims again and compare with the committed ones"
    )
    command.add_argument("--only", nargs="+", metavar="NN", help="notebooks by the beginning of their name")
    command.set_defaults(call=_verify)

    command = commands.add_parser("models", help="show the default model, converting it on first use")
    command.set_defaults(call=_models)

    command = commands.add_parser("bench", help="time the sampler, CATTO against DPO, or the training of the family")
    command.add_argument("what", choices=["sampling", "chains", "training", "family"])
    command.add_argument("--model", default=None, help="name, folder or hub id (default: the bundled model)")
    command.add_argument("--device", default="auto")
    command.set_defaults(call=_bench)

    options = parser.parse_args(arguments)
    try:
        return options.call(options)
    except (ConfigError, DataError, ModelError, SamplingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options) -> int:
    from calib_utils import runner

    notebooks = runner.assign(runner.find_notebooks(options.only), runner.parse_overrides(options.overrides))
    for notebook, overrides in notebooks.items():  # everything is checked before anything starts
        runner.parameters_of(notebook, options.profile, overrides)
    if options.dry_run:
        for notebook, overrides in notebooks.items():
            how, seconds = runner.plan(notebook, options.profile, overrides)
            print(f"{notebook.stem}: {how}, " + (f"took {seconds:.0f} s before" if seconds else "time not known"))
        return 0
    if len(notebooks) > 1:
        return _run_several(notebooks, options)
    ((notebook, overrides),) = notebooks.items()
    print(f"{notebook.stem}: running, profile {options.profile}", flush=True)
    try:
        outcome = runner.run(notebook, options.profile, overrides, options.output)
    except runner.RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{outcome.notebook}: done in {outcome.seconds:.0f} s, {outcome.executed}", flush=True)
    return 0


def _run_several(notebooks, options) -> int:
    from calib_utils import batch, runner

    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs is {options.jobs}; it must be at least 1")
    plans = {path: runner.plan(path, options.profile, overrides) for path, overrides in notebooks.items()}
    pending = [
        batch.Job(path.stem, batch.command(path, options.profile, overrides, options.output), plans[path][1])
        for path, overrides in notebooks.items()
    ]
    jobs = options.jobs or batch.slots(redraw=all(how == runner.CACHED for how, _ in plans.values()))
    try:
        failed = batch.run(pending, jobs, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped; what was computed is kept: the same command goes on from there", file=sys.stderr)
        return 130
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _verify(options) -> int:
    import pandas as pd

    from calib_utils import manifest, runner, verify

    committed, anew, tables = ROOT / "figures", "runs/verify/figures", []
    for notebook in runner.find_notebooks(options.only):
        made = manifest.read(runner.manifest_path(notebook, committed))
        if made is None:
            raise ConfigError(f"figures/ has no manifest of {notebook.stem}; run it first")
        print(f"{notebook.stem}: computing again", flush=True)
        given = {name: made["parameters"][name] for name in made["parameters"] if name != "profile"} | {
            "figures": anew
        }
        try:
            runner.run(notebook, made["profile"], given, ROOT / "runs" / "verify")
        except runner.RunError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        now = manifest.read(runner.manifest_path(notebook, ROOT / anew))
        found = verify.compare_folders(committed, ROOT / anew, notebook.stem[:2], verify.same_class(made, now))
        tables.append(found)
        print(f"{notebook.stem}: {found['passed'].sum()} of {len(found)} columns within tolerance", flush=True)
    table = pd.concat(tables, ignore_index=True)
    wrong = table[~table["passed"]]
    print(wrong.to_string(index=False) if len(wrong) else "everything as committed")
    return 1 if len(wrong) else 0


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
    from calib_utils import bench, models

    (ROOT / "figures").mkdir(exist_ok=True)
    name = options.model or models.DEFAULT_MODEL
    if options.what == "training":
        table = bench.training(name, options.device)
    elif options.what == "family":
        table = bench.family(options.device)
    else:
        timed = {"sampling": bench.sampling, "chains": bench.chains}[options.what]
        table = timed(models.load(name, device=options.device))
    suffix = "" if (table["device"] == "cpu").all() else "_cuda"
    path = ROOT / "figures" / f"bench_{options.what}{suffix}.csv"
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    print(table.to_string(index=False))
    print(f"written to {path}")
    return 0
