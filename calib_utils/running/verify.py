"""Verify: the numbers of figures and claims computed again from the records, and compared with the committed ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from calib_utils import claims, storage

EXACT = 2e-5  # relative: figures hold six significant digits, claims four decimals
COLUMNS = ("file", "what", "expected", "obtained", "tolerance", "passed")


def prepare(committed: Path, folder: Path, notebooks: list[str]) -> None:
    """Empty `folder` for figures that are made again, but for the committed claims of other notebooks."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if (committed / "claims.csv").is_file():
        rows = pd.read_csv(committed / "claims.csv", dtype=str, keep_default_na=False)
        others = rows[~rows["notebook"].isin(notebooks)]
        storage.publish(folder / "claims.csv", others.to_csv(index=False, lineterminator="\n"))


def compare(expected: Path, obtained: Path, exact: bool, notebook: str = "") -> list[dict]:
    """One row per numeric column of a CSV file: its largest difference, against the tolerance.

    Of claims only those of `notebook` count.

    With `exact` (`same_class`) a difference is allowed in the last digit only. Otherwise draws and weights differ,
    and the bounds of sampling hold: for a claim the distance from its value to the farther end of its committed
    interval, for other numbers 0.05 up to 1 and 5 % beyond. Texts must be equal; verdicts and conditions that are not
    get a row without a tolerance, which passes unless `exact`. The commits of a claim's row are no result.
    """
    missing = [path for path in (expected, obtained) if not path.is_file()]
    if missing:
        there = ["missing" if path in missing else "there" for path in (expected, obtained)]
        return [_row(expected, "file", *there, 0, False)]
    of_claims = expected.name == "claims.csv"
    text = {"seeds": str} if of_claims else None  # "0" is the name of a seed
    old, new = (pd.read_csv(path, dtype=text) for path in (expected, obtained))
    if of_claims:
        own = (table[table["notebook"] == notebook].reset_index(drop=True) for table in (old, new))
        old, new = (table.drop(columns=list(claims.OF_A_RUN), errors="ignore") for table in own)
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return [_row(expected, "shape", f"{old.shape}", f"{new.shape}", 0, False)]
    rows = []
    for column in old.columns if len(old) else ():
        before, after = old[column], new[column]
        if any(not pd.api.types.is_numeric_dtype(c) or pd.api.types.is_bool_dtype(c) for c in (before, after)):
            free = not exact and column in ("verdict", "conditions")
            for at in np.flatnonzero((before.fillna("") != after.fillna("")).to_numpy()):
                rows.append(_row(expected, f"{column}, row {at}", before[at], after[at], np.nan if free else 0, free))
            continue
        if column == "n_decides" and not exact:
            continue  # goes with the verdict
        size = before.abs()
        if exact:
            allowed = EXACT * size + 1e-12
        elif of_claims:
            allowed = np.maximum(old["ci_high"] - old["value"], old["value"] - old["ci_low"]).clip(lower=0)
        else:
            allowed = 0.05 * size.clip(lower=1)
        allowed = allowed.fillna(0.0)
        same = (before == after) | (before.isna() & after.isna())  # an end of an interval may be infinite
        gap = (after - before).abs().where(~same, 0.0).fillna(np.inf)
        at = int((gap - allowed).argmax())
        passed = bool((gap <= allowed).all())
        rows.append(_row(expected, f"{column}, row {at}", before[at], after[at], float(allowed[at]), passed))
    return rows


def _row(path: Path, what: str, expected, obtained, tolerance: float, passed: bool) -> dict:
    return dict(zip(COLUMNS, (path.name, what, expected, obtained, tolerance, passed), strict=True))


def compare_folders(expected: Path, obtained: Path, notebook: str, exact: bool) -> pd.DataFrame:
    """`compare` of every CSV file of a notebook (`NN_*.csv`, of either folder) and of its claims."""
    names = {path.name for folder in (expected, obtained) for path in folder.glob(f"{notebook[:2]}_*.csv")}
    rows = [row for name in sorted(names) for row in compare(expected / name, obtained / name, exact)]
    rows += compare(expected / "claims.csv", obtained / "claims.csv", exact, notebook)
    return pd.DataFrame(rows, columns=COLUMNS)


def same_class(first: dict, second: dict) -> bool:
    """Whether two manifests promise the same numbers: processor or GPU, threads, torch, transformers, and the dtypes
    of the models that both loaded (a redraw loads fewer).
    """

    def told(manifest: dict) -> tuple:
        machine = [manifest.get(name) for name in ("device", "processor", "threads")]
        return *machine, *(manifest["versions"].get(name) for name in ("torch", "transformers"))

    def dtypes(manifest: dict, name: str) -> set:
        return {about["dtype"] for about in manifest["models"] if about["model"] == name}

    both = {about["model"] for about in first["models"]} & {about["model"] for about in second["models"]}
    return told(first) == told(second) and all(dtypes(first, name) & dtypes(second, name) for name in both)
