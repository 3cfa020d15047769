"""Crossing: what numbers take from models. Noted while a notebook runs; read back on machines that have no models.

Whatever computes with a model (draws, probabilities of options, tables, training logs) notes here what it gave, under
a kind and a key. The key is made of what decides the result, and of no library's version, dtype or device.
`shipped` in `records` turns the notes into files and back. While `reading` is on nothing computes: values come from
such a file, or their absence is an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from calib_utils.config import STAGED
from calib_utils.errors import RecordError

Notes = dict[tuple[str, str], object]  # (kind, key): a row of draws, or a table


@dataclass(frozen=True)
class Shipment:
    """The notes of one notebook's run, read from a file."""

    notebook: str
    path: Path
    notes: Mapping[tuple[str, str], object]


_notes: Notes = {}
_source: Shipment | None = None
_aside = False


def reading() -> bool:
    """Whether values are read instead of computed."""
    return _source is not None


@contextlib.contextmanager
def reading_from(shipment: Shipment) -> Iterator[None]:
    """Within it nothing is computed with a model: `found` gives what the shipment holds."""
    global _source
    before, _source = _source, shipment
    try:
        yield
    finally:
        _source = before


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Within it nothing is noted: training draws for itself, and no number is taken from that."""
    global _aside
    before, _aside = _aside, True
    try:
        yield
    finally:
        _aside = before


def found(kind: str, key: str, about: object):
    """What was noted for this kind and key; RecordError, which says what `about` is, if the shipment lacks it."""
    if (kind, key) not in _source.notes:
        changed = "code, parameters or questions have changed since it was written"
        raise RecordError(
            f"{_source.path} holds no {kind} of {about} for notebook {_source.notebook}: "
            f"{changed if _source.path.exists() else 'there is no such file'}. Restore it (git checkout), or measure "
            "anew where the models are: "
            f"python -m calib_utils run --only {_source.notebook[:2]}"
        )
    return _source.notes[kind, key]


def noting() -> bool:
    """Whether `note` keeps anything: in a notebook that `python -m calib_utils run` started, and not `aside`."""
    return STAGED in os.environ and _source is None and not _aside


def note(kind: str, key: str, value: object) -> None:
    """Keep what a model gave; RecordError for another value under the same kind and key."""
    if not noting():
        return
    known = _notes.setdefault((kind, key), value)
    same = known is value or (known.equals(value) if hasattr(known, "equals") else known == value)
    if not same:
        raise RecordError(
            f"two different {kind} would be shipped under one key, {key}: two folders of models have the same name; "
            "rename one of them"
        )


def noted() -> Notes:
    """All that this process has noted."""
    return _notes


def on_demand(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__`: each of `names` is loaded from its file there when it is asked for (PEP 562)."""

    def find(name: str):
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{names[name]}"), name)

    return find


class Lazy:
    """A module, or a name in one (`"module:name"`), that is imported when it is first used, and torch with it."""

    def __init__(self, name: str) -> None:
        """Nothing is imported yet."""
        self._name = name

    def _resolved(self):
        return pkgutil.resolve_name(self._name) if ":" in self._name else importlib.import_module(self._name)

    def __getattr__(self, name: str):
        return getattr(self._resolved(), name)

    def __call__(self, *given, **named):
        """Call what the name stands for."""
        return self._resolved()(*given, **named)
