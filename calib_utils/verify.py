"""Verify: the numbers of figures and claims computed again from the records, and compared with the committed ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from calib_utils.claims import CLAIMS

EXACT = 2e-5  # relative: figures hold six significant digits, claims four decimals
COLUMNS = ("file", "what", "expected", "obtained", "tolerance", "passed")


def compare(expected: Path, obtained: Path, exact: bool, number: str = "") -> list[dict]:
    """One row per numeric column of a CSV file: its largest difference, against the tolerance.

    Of claims only those of notebook `number` count.

    With `exact` (same device class, dtype and torch) a difference is allowed in the last digit only. Otherwise the
    bounds of sampling hold: `Claim.tolerance` for claims, 0.05 for other numbers up to 1, 5 % beyond. Texts must be
    equal; verdicts must be equal if `exact`.
    """
    if not obtained.is_file():
        return [_row(expected, "file", "there", "missing", 0, False)]
    old, new = (pd.read_csv(path) for path in (expected, obtained))
    claims = "verdict" in old
    if claims:
        old, new = (t[t["notebook"].str.startswith(number)].reset_index(drop=True) for t in (old, new))
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return [_row(expected, "shape", f"{old.shape}", f"{new.shape}", 0, False)]
    rows = []
    for column in old.columns:
        before, after = old[column], new[column]
        if any(not pd.api.types.is_numeric_dtype(c) or pd.api.types.is_bool_dtype(c) for c in (before, after)):
            differ = np.flatnonzero((before.fillna("") != after.fillna("")).to_numpy())
            if len(differ) and (exact or column not in ("verdict", "conditions")):
                at = differ[0]
                rows.append(_row(expected, f"{column}, row {at}", before[at], after[at], 0, False))
            continue
        size = before.abs()
        if exact:
            allowed = EXACT * size + 1e-12
        elif claims:
            allowed = old["id"].map(lambda name: CLAIMS[name].tolerance if name in CLAIMS else 0.05)
        else:
            allowed = 0.05 * size.clip(lower=1)
        allowed = allowed.fillna(0.0)
        gap = (after - before).abs().where(before.notna() | after.notna(), 0.0).fillna(np.inf)
        at = int((gap - allowed).argmax())
        passed = bool((gap <= allowed).all())
        rows.append(_row(expected, f"{column}, row {at}", before[at], after[at], float(allowed[at]), passed))
    return rows


def _row(path: Path, what: str, expected, obtained, tolerance: float, passed: bool) -> dict:
    return dict(zip(COLUMNS, (path.name, what, expected, obtained, tolerance, passed), strict=True))


def compare_folders(expected: Path, obtained: Path, number: str, exact: bool) -> pd.DataFrame:
    """`compare` of every CSV file of a notebook (`number_*.csv`) and of its claims; columns as `COLUMNS`."""
    files = sorted(expected.glob(f"{number}_*.csv"))
    rows = [row for path in files for row in compare(path, obtained / path.name, exact)]
    rows += compare(expected / "claims.csv", obtained / "claims.csv", exact, number)
    return pd.DataFrame(rows, columns=COLUMNS)


def same_class(first: dict, second: dict) -> bool:
    """Whether two manifests promise the same numbers: device class, dtypes of the models, torch."""

    def told(manifest: dict) -> tuple:
        dtypes = tuple(sorted({(about["model"], about["dtype"]) for about in manifest["models"]}))
        return manifest["device"], dtypes, manifest["versions"].get("torch"), manifest["versions"].get("transformers")

    return told(first) == told(second)
