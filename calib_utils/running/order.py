"""Order: which notebook goes before which. Imports nothing, so that an engine for grids can read it too."""

from __future__ import annotations

from collections.abc import Iterable

# Trained stages of the first are what the second starts from.
_STARTS_FROM = {
    "04_catto": ("02_rl_degradation",),
    "05_calibration_aware": ("02_rl_degradation",),
}
_READS_ALL = ("08_claims",)  # what the others wrote


def before(notebook: str, others: Iterable[str]) -> list[str]:
    """Those of `others` that go before a notebook, if they run at all."""
    first = _STARTS_FROM.get(notebook, ())
    return [name for name in others if name != notebook and (name in first or notebook in _READS_ALL)]
