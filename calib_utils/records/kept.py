"""Kept: tables of models that are trained and measured here as a whole, computed once and shipped. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from calib_utils import crossing, storage
from calib_utils.records import store


def kept(kind: str, target: Path, name: str, parts: Mapping, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that `compute()` gives, or has given into the file `target`, or that was shipped.

    Parameters
    ----------
    kind : what the tables are of, such as "world".
    target : its name tells all that decides the table on this machine, code and versions included.
    name, parts : what finds the shipped table: its own name, and the parameters that it may depend on.

    Raises RecordError for a damaged file, and where shipped records are read for a table that is not among them.
    """
    key = storage.digest([name, dict(parts)])
    if crossing.reading():
        return crossing.found(kind, key, name)
    with crossing.aside():  # what a table is made of is not shipped beside it
        table = store.stored(target, compute)
    crossing.note(kind, key, table)
    return table


def code_digest(paths: Iterable[Path]) -> str:
    """16 hexadecimal digits that change when these files do: tables of other code are not used again."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
