"""Report: the figures of notebook 07 with the tables behind them, and what its claims rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import pandas as pd

from calib_utils.types import Estimate, Record
from calib_utils.world import house, mechanism, pictures, statements
from calib_utils.world.study import MEASURES, Study, along, over_seeds, per_seed, points

_BY = ["panel", "condition", "strength"]
_MEANT = ["error", "gap", "signed", "accuracy", "confidence", "distance", "covered"]
_STYLES = {"concise": "at once", "cot": "by a chain"}


class Report(Study):
    """A study, told: every method that ends in a picture returns (figure, numbers behind it)."""

    @staticmethod
    def labels(measures: Sequence[str]) -> dict[str, str]:
        """Measure -> its label, `MEASURES` without what stands in brackets."""
        return {name: MEASURES[name].split(" (")[0] for name in measures}

    def example(self) -> pd.DataFrame:
        """One question of the first world: its answers with their true probabilities and texts, likeliest first."""
        world, seed = self.worlds[0], self.run.seed
        texts = [", ".join(world.forms(answer)) for answer in world.answers]
        posterior = world.posterior(world.names("test", 1, seed))[0]
        shown = pd.DataFrame({"answer": world.answers, "probability": posterior, "texts": texts})
        return shown.assign(question=world.questions("test", 1, seed)[0].text).sort_values(
            "probability", ascending=False
        )

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """`MEASURES` of every condition and training seed (`Study.measured`)."""
        return self.measured(_BY)

    def drawing(self):
        """The mechanism on one question; the numbers are those of the classes and those of the texts."""
        shown = self.mechanism()
        return pictures.drawing(shown["texts"], shown["classes"]), shown["classes"], shown["texts"]

    def lines(self, panel: str, measures: Sequence[str], xlabel: str, log: bool = False):
        """Measures of a panel along its strength: means over seeds, a line per condition."""
        means = over_seeds(self.by_seed, _BY, _MEANT)
        part = means[means["panel"] == panel]
        return pictures.line_panels(part, "strength", "condition", self.labels(measures), xlabel, log=log), part

    def rows(self, panel: str, measures: Sequence[str], references: Sequence[str]):
        """Measures of a panel, a row per condition; lines at the first condition that begins as each reference."""
        part = over_seeds(self.by_seed[self.by_seed["panel"] == panel], ["condition"], measures)
        named = [next(name for name in part["condition"] if name.startswith(begun)) for begun in references]
        return pictures.interval_panels(part, "condition", self.labels(measures), named), part

    def ask(self, at: int = 0) -> list[Record]:
        """A base model as the project's own, drawn from by its sampler (`house.ask`)."""
        run = self.run
        return house.ask(
            self.language_model(at), self.worlds[at], run.n_house, run.n_samples, run.records_dir, run.seed
        )

    def compared(self, drawn: Sequence[Record], at: int = 0):
        """Confidence from draws against exact masses, and the diagram from draws (`house.diagram`)."""
        masses = self.exact(at, self.run.n_house)
        return house.diagram(drawn, self.worlds[at], masses, self.run.n_boot, self.run.seed)

    @cached_property
    def tilted(self) -> pd.DataFrame:
        """The measures of the exact predictor under known tilts."""
        return per_seed(self.tilts(), _BY)

    def known(self):
        """Loss gap and error of known tilts on the closed form of the gap."""
        curve = self.tilt_curve()
        return pictures.known_tilts(points(self.tilted, ["strength"]), curve), curve

    def theorem(self):
        """Error against loss gap of every condition and of the tilted exact predictor."""
        found = along(self.by_seed, self.tilted)
        return pictures.gap_against_error(found, "group", f"means over {len(self.seeds)} seeds"), found

    @cached_property
    def graded(self) -> dict[str, pd.DataFrame]:
        """Measures of look-ups by how they are graded: "exam", where the tables lead, and "text", as it is read."""
        by, chains = ["style", "k", "strength"], self.chains()
        return {"exam": per_seed(chains, by, "right"), "text": per_seed(chains, by)}

    def look_ups(self, measures: Sequence[str]):
        """Measures of look-ups at once and by a chain, by their number and by how they are graded."""
        last = {name: table[table["strength"] == self.run.lookup_steps] for name, table in self.graded.items()}
        part = pd.concat([t.replace({"style": _STYLES}).assign(graded=f"{name}, ") for name, t in last.items()])
        part = part.assign(line=part["graded"] + part["style"])
        table = over_seeds(part, ["line", "k"], list(measures))
        return pictures.line_panels(table, "k", "line", self.labels(measures), "look-ups k"), table

    def growing(self):
        """Mean and spread over chains of g, the probability of the model's likeliest answer, by the steps given."""
        found = self.growth().groupby(["k", "given", "seed"])["confidence"].agg(["mean", "std"]).reset_index()
        found = found.assign(line="k = " + found["k"].astype(str))
        table = over_seeds(found, ["line", "given"], ["mean", "std"])
        shown = {"mean": "mean of g", "std": "spread of g (standard deviation)"}
        return pictures.line_panels(table, "given", "line", shown, "steps given"), table

    def probed(self):
        """The probe's KL gap against the calibration error."""
        found = points(self.learnability(), ["family", "setting", "k", "label"], ["kl", "error"])
        about = {"x": "kl", "y": "error", "group": "family", "note": "label"}
        ylabel = self.labels(["error"])["error"]
        return pictures.scatter(found, xlabel="KL gap of the probe (nats)", ylabel=ylabel, **about), found

    def choosing(self):
        """Accuracy of the one of k candidates that is kept, by strategy and model."""
        selected = self.selection().rename(columns={"correct": "value_"})
        table = over_seeds(selected, ["model", "strategy", "k"], ["value_"])
        table = table.assign(metric=table["model"])
        shown = {name: f"accuracy, {name}" for name in dict.fromkeys(table["model"])}
        return pictures.line_panels(table, "k", "strategy", shown, "candidates k", log=True), table

    def real(self):
        """Error against loss gap of the default model, from scores that other notebooks left; None without any.

        A condition of fewer than `mechanism.LEAST` questions has no loss gap and is left out.
        """
        found = mechanism.read_scores(self.run.claims_dir)
        scores = {name: table for name, table in found.items() if len(table) >= mechanism.LEAST}
        if not scores:
            return None
        table = mechanism.measure(scores, n_boot=self.run.n_boot, seed=self.run.seed)
        title = "conditions of the default model"
        return pictures.gap_against_error(table, "notebook", title, "condition"), table

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables that statements are about, by name."""
        own = {"answers": self.by_seed, "tilts": self.tilted, **self.graded, "growth": self.growth()}
        return {**own, "learnability": self.learnability(), "selection": self.selection()}

    def estimates(self) -> dict[str, Estimate]:
        """The estimate of every statement, by its id (`statements.estimates`)."""
        return statements.estimates(self.tables)

    def told(self, found: Mapping[str, Estimate]) -> pd.DataFrame:
        """The estimates with their statements, a row each (`statements.table`)."""
        return statements.table(found)

    def conditions(self, name: str) -> Estimate | None:
        """What decides the further condition of a claim, if it has one: that confidence is informative."""
        return statements.informative(self.tables) if name == "world-reading" else None
