"""Progress: how long notebooks still take, by what earlier runs took and which cell each is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calib_utils import claims
from calib_utils.claims import findings
from calib_utils.home import ROOT
from calib_utils.running import manifest, runner

_TRUSTED = 0.1  # share of a run after which its own pace corrects the forecast


@dataclass
class Forecast:
    """What a run is expected to take, and where it stands.

    Attributes
    ----------
    seconds : in all; None where no earlier run tells anything.
    guessed : the earlier run had other parameters.
    cells : seconds per code cell of an earlier run, empty if not known.
    executed : the executed copy, which grows cell by cell.
    """

    seconds: float | None = None
    guessed: bool = False
    cells: Sequence[float] = ()
    executed: Path | None = None
    _seen: tuple[int, int, float] = field(default=(0, 0, 0.0), repr=False)  # cells done, cells, when first seen

    def left(self, elapsed: float) -> float | None:
        """Seconds left of a run that began `elapsed` seconds ago."""
        done, n_cells = cells_done(self.executed)
        if done > self._seen[0]:
            self._seen = done, n_cells, elapsed
        done, n_cells, until = self._seen
        if len(self.cells) == n_cells > 0:
            before, after = sum(self.cells[:done]), sum(self.cells[done + 1 :])
            pace = until / before if before > _TRUSTED * sum(self.cells) else 1.0
            return pace * after + max(pace * sum(self.cells[done : done + 1]) - (elapsed - until), 0.0)
        if self.seconds is not None and elapsed < self.seconds:
            return self.seconds - elapsed
        return until * (n_cells - done) / done if done else None  # every cell as long as the others


def forecast(notebook: Path, parameters: Mapping[str, object], plan: runner.Plan, output: Path) -> Forecast:
    """By the last run with the same parameters; else by one with others, in proportion to the questions."""
    executed = output / "running" / notebook.stem / notebook.name
    if plan.how == runner.CACHED:
        last = plan.last.get("seconds")
        anew = plan.seconds_anew is not None and last is not None and last >= plan.seconds_anew
        return Forecast(None if anew else last, executed=executed)
    folders = (output, ROOT / "figures")
    found = [about for at in folders if (about := manifest.read(runner.manifest_path(notebook, at)))]
    cells = next((about["cells"] for about in found if about.get("cells")), ())
    if plan.seconds_anew is not None:
        return Forecast(plan.seconds_anew, cells=cells, executed=executed)
    for about in found:
        if about.get("seconds_anew"):
            mine, its = (one.get("n_questions") or 1 for one in (parameters, about["parameters"]))
            scaled = [seconds * mine / its for seconds in cells]
            return Forecast(about["seconds_anew"] * mine / its, True, scaled, executed)
    return Forecast(executed=executed)


def cells_done(executed: Path | None) -> tuple[int, int]:
    """Code cells that have run, and how many there are, in a copy that papermill is writing; zeros before it has."""
    found = manifest.cell_times(executed) if executed else []
    return sum(seconds is not None for seconds in found), len(found)


def told(running: Mapping[str, tuple[Forecast, float]], waiting: Sequence[Forecast], jobs: int) -> str:
    """What runs, for how long of how long, how many wait, and the minutes left in all.

    Of a notebook of which nothing is known the time is the mean of the others'; "about" is said of a guess.

    Parameters
    ----------
    running : per notebook its forecast and the seconds since it began.
    """
    each = [(name, elapsed, one.left(elapsed), one.guessed) for name, (one, elapsed) in running.items()]
    shown = [f"{name} {minutes(e)} of {minutes(None if rest is None else e + rest)}" for name, e, rest, _ in each]
    totals = [elapsed + rest for _, elapsed, rest, _ in each if rest is not None]
    totals += [one.seconds for one in waiting if one.seconds is not None]
    mean = sum(totals) / len(totals) if totals else None
    left = [rest if rest is not None or mean is None else max(mean - elapsed, 0.0) for _, elapsed, rest, _ in each]
    left += [mean if one.seconds is None else one.seconds for one in waiting]
    total = None if None in left else sum(left) / jobs
    unsure = len(totals) < len(left) or any(guessed for *_, guessed in each) or any(one.guessed for one in waiting)
    about = "about " if unsure and total is not None else ""
    return f"{', '.join(shown)}; {len(waiting)} waiting; {about}{minutes(total)} left"


def outcome(notebook: str, seconds: float, output: Path, figures: Path, failed: bool = False) -> str:
    """One line about a notebook that has run: its time, its verdicts, and where the executed copy lies."""
    if failed:
        executed = output / f"{notebook}.failed.ipynb"
        where = executed if executed.exists() else "nothing was executed"
        return f"{notebook}: failed after {minutes(seconds)}; {where}"
    rows = [row for row in claims.read_claims(figures) if row["notebook"] == notebook]
    return f"{notebook}: {minutes(seconds)}, {findings.counted(rows) or 'no claims'}; {output / notebook}.ipynb"


def minutes(seconds: float | None) -> str:
    """`"1:05"`; "?" where it is not known."""
    return "?" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
