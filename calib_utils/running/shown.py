"""Shown: executed notebooks as they are shipped, with their results and nothing of the machine that made them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat

from calib_utils import storage
from calib_utils.errors import ConfigError
from calib_utils.home import ROOT
from calib_utils.running import manifest, runner

FOLDER = ROOT / "site" / "notebooks"
_INJECTED = "injected-parameters"
_COLORS = 128
_WIDGETS = "application/vnd.jupyter.widget-view+json"


def copies(executed: Path, figures: Path = ROOT / "figures", target: Path = FOLDER) -> list[str]:
    """Put a copy of every notebook in `executed` into `target`, where its run is the one of the shipped figures.

    Copies there whose figures are of another run, or whose notebook has changed since, are removed: what is shown is
    what was measured. Returns the names of the notebooks that are shown now.

    Raises ConfigError if there is no executed notebook.
    """
    notebooks = {path.stem: path for path in runner.find_notebooks()}
    if not any((executed / path.name).exists() for path in notebooks.values()):
        raise ConfigError(f"{executed} holds no executed notebook; run `python -m calib_utils run` first")
    for path in notebooks.values():
        made, about = executed / path.name, manifest.read(runner.manifest_path(path, executed))
        if made.exists() and about and about == manifest.read(runner.manifest_path(path, figures)):
            copy = shown(nbformat.read(made, 4), about)
            if sources(copy) == sources(relinked(nbformat.read(path, 4))):
                storage.publish(target / path.name, nbformat.writes(copy) + "\n")
    for found in target.glob("*.ipynb"):
        if found.stem not in notebooks or drift(found, notebooks[found.stem], figures):
            found.unlink()
    return sorted(path.stem for path in target.glob("*.ipynb"))


def drift(copy: Path, notebook: Path, figures: Path = ROOT / "figures") -> str:
    """Why a shipped copy does not show its notebook and the shipped figures; empty if it does."""
    found, about = nbformat.read(copy, 4), manifest.read(runner.manifest_path(notebook, figures))
    if sources(found) != sources(relinked(nbformat.read(notebook, 4))):
        return f"{copy.name} shows other cells than its notebook has"
    if not about or found.metadata["run"]["started"] != about["started"]:
        return f"{copy.name} is of another run than the shipped figures"
    return ""


def sources(notebook: nbformat.NotebookNode) -> list[tuple[str, str, str]]:
    """Kind, id and source of every cell but those that papermill puts in."""
    cells = [cell for cell in notebook.cells if _INJECTED not in cell.metadata.get("tags", [])]
    return [(cell.cell_type, cell.id, cell.source) for cell in cells]


def relinked(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook whose links from `notebooks/` to other folders lead there from `site/notebooks/` too."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            away = cell.source.replace("](../", "](../../")
            cell.source = re.sub(r"\]\((assignments|profiles)/", r"](../../notebooks/\1/", away)
    return notebook


def shown(executed: nbformat.NotebookNode, about: dict) -> nbformat.NotebookNode:
    """An executed notebook without progress bars, times, paths, widgets and the cell of injected parameters.

    Pictures keep 128 colours, a third of their size. `about` is the manifest of the run.
    """
    cells = []
    for cell in relinked(executed).cells:
        tags = cell.metadata.get("tags", [])
        if _INJECTED in tags:
            continue
        fresh = {"cell_type": cell.cell_type, "id": cell.id, "source": cell.source}
        fresh["metadata"] = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            fresh |= {"outputs": [_output(one) for one in cell.outputs if one.get("name") != "stderr"]}
            fresh |= {"execution_count": None}
        cells.append(nbformat.from_dict(fresh))
    kept = {name: executed.metadata[name] for name in ("kernelspec",) if name in executed.metadata}
    kept["language_info"] = {"name": "python"}
    kept["run"] = {name: about[name] for name in ("started", "commit", "profile")}
    return nbformat.v4.new_notebook(cells=cells, metadata=kept, nbformat_minor=5)


def _output(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    output = nbformat.from_dict({**output})
    if output["output_type"] == "execute_result":
        output["execution_count"] = None
    if "text" in output:
        output["text"] = output["text"].replace(f"{ROOT}/", "")
    if "data" in output:
        data = {kind: value for kind, value in output["data"].items() if kind != _WIDGETS}
        if "image/png" in data:
            data["image/png"] = _fewer_colors(data["image/png"])
        output["data"] = nbformat.from_dict(data)
        sizes = {kind: about for kind, about in output.metadata.items() if kind == "image/png"}
        output["metadata"] = nbformat.from_dict(sizes)
    return output


def _fewer_colors(png: str) -> str:
    from PIL import Image

    content = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(_COLORS, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()
