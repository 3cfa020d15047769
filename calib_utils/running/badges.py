"""Badges: links that open the quickstart on Binder and Colab, for the repository that a clone is published in."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from calib_utils import storage
from calib_utils.errors import ConfigError

_BEGIN, _END = "<!-- badges -->", "<!-- /badges -->"
_NOTEBOOK = "notebooks/00_quickstart.ipynb"
_ADDRESS = re.compile(r'(?m)^(\s*repository = )"[^"]*"')


def write(root: Path, repository: str, branch: str = "main") -> None:
    """Write the badges of `repository` (OWNER/NAME on GitHub) into README.md, and its address into notebook 00.

    Raises ConfigError for another form of name, a README without the two markers, or a notebook without its cell.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(f"repository is {repository!r}; it must look like OWNER/NAME")
    readme, notebook = root / "README.md", root / _NOTEBOOK
    before, begin, rest = readme.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    found = nbformat.read(notebook, 4)
    cells = [cell for cell in found.cells if "colab" in cell.metadata.get("tags", [])]
    if not (begin and end) or len(cells) != 1:
        raise ConfigError(f"{readme} needs the lines {_BEGIN} and {_END}, {notebook} one cell with the tag colab")
    cells[0].source = _ADDRESS.sub(rf'\1"https://github.com/{repository}"', cells[0].source)
    storage.publish(readme, f"{before}{_BEGIN}\n{badges(repository, branch)}\n{_END}{after}")
    storage.publish(notebook, nbformat.writes(found) + "\n")


def badges(repository: str, branch: str = "main") -> str:
    """Markdown of both badges; Binder opens JupyterLab at the quickstart."""
    binder = f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/{_NOTEBOOK}"
    colab = f"https://colab.research.google.com/github/{repository}/blob/{branch}/{_NOTEBOOK}"
    return (
        f"[![Open on Binder](https://mybinder.org/badge_logo.svg)]({binder})\n"
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    )
