"""Order: which notebook goes before which. Imports nothing, so that an engine for grids can read it too."""

from __future__ import annotations

from collections.abc import Iterable

# Trained stages of the first are what the second starts from.
_STARTS_FROM = {
    "04_catto": ("02_rl_degradation",),
    "05_calibration_aware": ("02_rl_degradation",),
}
_READS_ALL = ("08_claims", "00_quickstart")  # what all others wrote, the second what the first wrote too


def before(notebook: str, others: Iterable[str]) -> list[str]:
    """Those of `others` that go before a notebook, if they run at all."""
    first, last = _STARTS_FROM.get(notebook, ()), ()
    if notebook in _READS_ALL:
        last = _READS_ALL[_READS_ALL.index(notebook) :]
    return [name for name in others if name in first or (last and name not in last)]
