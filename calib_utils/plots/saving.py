"""Saving: a picture and the numbers behind it, byte-identical for the same numbers."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from calib_utils import storage


def save(figure, path: str | Path, numbers: pd.DataFrame) -> None:
    """Write `path` (PNG) and the numbers behind it (CSV of the same name); the same input gives the same bytes."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    save_numbers(numbers, Path(path).with_suffix(".csv"))
    storage.publish(path, picture.getvalue())


def save_numbers(numbers: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV with six significant digits."""
    storage.publish(path, numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
