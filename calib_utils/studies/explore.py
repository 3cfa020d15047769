"""Explorer, the panel: widgets that choose what is looked at, and a figure where widgets cannot run."""

from __future__ import annotations

import base64
import html
import io
import os
import textwrap
from dataclasses import asdict, fields, replace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from calib_utils import plots
from calib_utils.config import STAGED
from calib_utils.errors import ConfigError
from calib_utils.studies.explorer import ALL, COLLAPSE, SOURCE, Choice, Explorer, Shown

_DPI = 96
_CHOSEN = tuple(field.name for field in fields(Choice))


def explore(records: pd.DataFrame, **choice):
    """Look at recorded answers: sliders and menus in JupyterLab, Voila or Binder, one figure anywhere else.

    Parameters
    ----------
    records : rows of shipped records (`records.shipped.read`).
    choice : what to begin with: any field of `explorer.Choice`.

    Returns
    -------
    A `Panel`; under the runner (`calib_utils run`), or where ipywidgets is not installed, the figure of the choice.
    """
    explorer = Explorer(records)
    start = explorer.start(**choice)
    if STAGED in os.environ:  # a batch run: nobody is there to move a slider
        return picture(explorer.show(start), start)
    try:
        return Panel(explorer, start)
    except ModuleNotFoundError:
        return picture(explorer.show(start), start)


def picture(shown: Shown, choice: Choice) -> Figure:
    """The diagram of a choice and the classes of its question, side by side."""
    with plt.style.context(plots.STYLE):
        figure = Figure(figsize=(9.4, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        plots.reliability_diagram(shown.curve, shown.smece, f"{choice.stage}, {choice.dataset}", left)
        question = "\n".join(textwrap.wrap(f"{shown.question.text} ({shown.question.answer})", 40))
        plots.class_bars(shown.classes, question, right)
    return figure


def numbers(shown: Shown) -> str:
    """The numbers of a choice in one line of HTML."""
    error = shown.smece
    parts = {
        "smECE": f"{error.value:.3f} [{error.low:.3f}, {error.high:.3f}], plug-in {error.plug_in:.3f}",
        "noise floor": f"{error.floor:.3f}",
        "confidence − accuracy": f"{shown.gap:+.3f}",
        "accuracy": f"{shown.accuracy:.3f}",
        "confidence": f"{shown.mean_confidence:.3f}",
        "n": f"{error.n}",
    }
    return " &nbsp; ".join(f"{name} <b>{html.escape(text)}</b>" for name, text in parts.items())


class Panel:
    """Controls, the numbers and the picture. `choice` is what is looked at now, `shown` its numbers.

    Displayed as widgets; its static form (GitHub, nbconvert, a notebook without a kernel) is the picture.
    """

    def __init__(self, explorer: Explorer, choice: Choice):
        """Raises ModuleNotFoundError without ipywidgets."""
        import ipywidgets as widgets

        self.explorer, self.choice = explorer, choice
        wide = {"layout": widgets.Layout(width="310px"), "style": {"description_width": "95px"}}
        menus = ("stage", "style", "dataset", "relation", "collapse", "question")
        self.controls = {name: widgets.Dropdown(description=name, **wide) for name in menus}
        self.controls["question"].layout = widgets.Layout(width="624px")
        slide = {**wide, "continuous_update": False}
        self.controls["m"] = widgets.IntSlider(choice.m, 1, choice.m, description="draws M", **slide)
        self.controls["temperature"] = widgets.FloatSlider(
            choice.temperature, min=0.4, max=2.0, step=0.1, description="temperature", **slide
        )
        self.numbers = widgets.HTML()
        self.image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))
        boxes = [self.controls[name] for name in _CHOSEN]
        flow = widgets.Layout(display="flex", flex_flow="row wrap")
        self.box = widgets.VBox([widgets.Box(boxes, layout=flow), self.numbers, self.image])
        self._offer()
        self._draw()
        for control in boxes:
            control.observe(self._changed, names="value")

    def set(self, **values) -> None:
        """Look at something else: any field of `Choice`.

        Raises ConfigError for an unknown field, ValueError for a value that is not offered.
        """
        unknown = set(values) - set(_CHOSEN)
        if unknown:
            raise ConfigError(f"a choice has no {sorted(unknown)[0]!r}; it has {list(_CHOSEN)}")
        self.choice = self._possible(replace(self.choice, **values), kept=values)
        self._offer()
        self._draw()

    def _possible(self, wanted: Choice, kept) -> Choice:
        """The choice, what its source lacks replaced by what it has; values that are `kept` decide the source."""
        chosen = {name: getattr(wanted, name) for name in SOURCE}
        found = self.explorer.sources(**chosen)
        if found.empty:
            found = self.explorer.sources(**{name: value for name, value in chosen.items() if name in kept})
        if found.empty:
            there = self.explorer.sources().to_dict("records")
            raise ValueError(f"nothing is recorded for {chosen}; there are {there}")
        new = replace(wanted, **found.iloc[0].to_dict())
        if new.relation not in self.explorer.relations(new):
            new = replace(new, relation=ALL)
        most, here = self.explorer.n_draws(new), len(self.explorer.questions(new))
        full = self.choice.m == self.explorer.n_draws(self.choice) and "m" not in kept
        asked = new.question if new.question < here and new.relation == self.choice.relation else 0
        return replace(new, m=most if full else min(new.m, most), question=asked)

    def _offer(self) -> None:
        """What can be chosen now, without telling `_changed`."""
        choice, explorer = self.choice, self.explorer
        every = explorer.sources()
        options = {name: list(dict.fromkeys(every[name])) for name in SOURCE}
        options["relation"] = explorer.relations(choice)
        options["collapse"] = list(COLLAPSE)
        options["question"] = [(text, i) for i, text in enumerate(explorer.questions(choice))]
        self._quiet = True
        for name, offered in options.items():
            if tuple(offered) != self.controls[name].options:
                self.controls[name].options = offered
        self.controls["m"].max = explorer.n_draws(choice)
        for name, value in asdict(choice).items():
            self.controls[name].value = value
        self._quiet = False

    def _changed(self, change) -> None:
        if not self._quiet:
            (name,) = (name for name, control in self.controls.items() if control is change["owner"])
            self.set(**{name: change["new"]})

    def _draw(self) -> None:
        self.shown = self.explorer.show(self.choice)
        self.numbers.value = numbers(self.shown)
        self.image.value = self._png()

    def _png(self) -> bytes:
        content, figure = io.BytesIO(), picture(self.shown, self.choice)
        figure.set_dpi(_DPI)
        FigureCanvasAgg(figure).print_png(content)  # `savefig` would draw twice to cut the edges
        return content.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        still = {"image/png": base64.b64encode(self.image.value).decode(), "text/plain": str(self.choice)}
        return {**self.box._repr_mimebundle_(), **still}
