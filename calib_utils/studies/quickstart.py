"""Quickstart: the findings of notebook 00, a picture and a sentence for each paper."""

from __future__ import annotations

from pathlib import Path

from calib_utils.claims import outcome, read_claims
from calib_utils.errors import ConfigError
from calib_utils.home import ROOT

# The picture that shows what a notebook is about; each of these notebooks is about another paper.
PICTURES = {
    "02_rl_degradation": "02_lineage.png",
    "04_catto": "04_choices.png",
    "05_calibration_aware": "05_methods.png",
    "06_lifecycle": "06_scale.png",
}


def findings(figures: Path = ROOT / "figures") -> list[tuple[str, Path]]:
    """For each paper what its claims came to, as Markdown, and the path of its picture.

    Raises ConfigError where the claims of a notebook, or its picture, are missing.
    """
    rows, found = read_claims(figures), []
    for notebook, picture in PICTURES.items():
        own = [row for row in rows if row["notebook"] == notebook]
        if not own or not (figures / picture).is_file():
            raise ConfigError(f"{figures} has no claims of {notebook}, or no {picture}; run that notebook first")
        found.append((f"### [{notebook}]({notebook}.ipynb)\n\n{outcome(own)}", figures / picture))
    return found
