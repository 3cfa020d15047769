"""Tables of estimates, one row per model, condition or group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from calib_utils.metrics.estimates import evaluate_seeds, mean_estimate, some_tables
from calib_utils.types import Estimate


def _plain(estimate: Estimate) -> dict[str, float]:
    """The columns of an estimate that is no calibration error."""
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "n")}


def mean_by(table: pd.DataFrame, by: Sequence[str], column: str, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of probabilities in every group, with 95 % intervals over questions; rows of one question count as one.

    `table` has a column `question_id`. Columns: those of `by`, then value, low, high, n (questions).
    """
    rows = []
    for key, part in table.groupby(list(by), sort=True):
        values = part.groupby("question_id", sort=True)[column].mean()
        rows.append({**dict(zip(by, key, strict=True)), **_plain(mean_estimate(values, n_boot, seed, (0.0, 1.0)))})
    return pd.DataFrame(rows)


def compare(
    tables: Mapping[object, pd.DataFrame | Sequence[pd.DataFrame]],
    names: Sequence[str],
    metrics: Sequence[str] = ("smece", "accuracy", "mean_confidence"),
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of several tables of scores (or lists of tables, one per training seed), in long form.

    `names` are the columns that the keys of `tables` fill; then follow metric, value, low, high, n, plug_in, floor.
    Raises ValueError for a key with an empty list.
    """
    rows = []
    for key, scores in tables.items():
        if not isinstance(scores, pd.DataFrame):
            some_tables(scores, f"those of {key!r}")
        labels = dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True))
        for metric in metrics:
            seeds = [scores] if isinstance(scores, pd.DataFrame) else scores
            rows.append({**labels, "metric": metric, **vars(evaluate_seeds(seeds, metric, (), n_boot, seed))})
    return pd.DataFrame(rows)


def wide(table: pd.DataFrame, index: str | list[str]) -> pd.DataFrame:
    """The values of `compare`, a column per metric, beside every calibration error its noise floor.

    Rows and metrics stay in the order of `table`.
    """
    by = [index] if isinstance(index, str) else list(index)
    values = table.pivot(index=by, columns="metric", values="value")
    floors = table.pivot(index=by, columns="metric", values="floor")
    columns = {}
    for metric in dict.fromkeys(table["metric"]):
        columns[metric] = values[metric]
        if floors[metric].notna().any():
            columns[f"{metric}, noise floor"] = floors[metric]
    rows = table[by].drop_duplicates()
    return pd.DataFrame(columns).loc[rows[by[0]] if len(by) == 1 else pd.MultiIndex.from_frame(rows)]


def stack(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """Tables one below the other, with their keys in a first column `name`."""
    return pd.concat(tables, names=[name]).reset_index(level=0).reset_index(drop=True)
