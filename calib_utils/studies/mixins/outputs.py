"""Outputs: what every notebook writes (figures, tables, claims) and says at its end, under the names of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from calib_utils import claims
from calib_utils.claims import findings
from calib_utils.config import FolderConfig
from calib_utils.types import Estimate

Told = tuple[pd.DataFrame, str | list[str], Mapping[str, str]]

# Plots and metrics are imported where they are used: parameters are checked before a run, which needs neither.


class Outputs(FolderConfig):
    """A notebook's parameters, and where its figures, tables and claims go."""

    @property
    def number(self) -> str:
        """The two digits in front of the notebook's name and of everything it writes."""
        return self.notebook()[:2]

    def save(self, figure, name: str, numbers: pd.DataFrame) -> None:
        """Write the figure as NN_name.png and the numbers behind it as NN_name.csv, NN the notebook's number."""
        from calib_utils import plots

        plots.save(figure, self.figures_dir / f"{self.number}_{name}.png", numbers)

    def save_table(self, numbers: pd.DataFrame, name: str) -> None:
        """Write a table without a figure as NN_name.csv."""
        from calib_utils import plots

        plots.save_numbers(numbers, self.figures_dir / f"{self.number}_{name}.csv")

    def save_scores(self, tables: Mapping[str, pd.DataFrame | Sequence[pd.DataFrame]], by: str = "model") -> None:
        """Write confidence and correctness of every question as NN_scores.csv, which notebook 07 reads."""
        from calib_utils import metrics

        every = {key: found if isinstance(found, pd.DataFrame) else pd.concat(found) for key, found in tables.items()}
        columns = [by, "question_id", "entity", "confidence", "correct"]
        self.save_table(metrics.stack(every, by)[columns], "scores")

    def tried(self, chosen: bool = True) -> pd.DataFrame:
        """The settings that were tried before those of the notebook were fixed, saved as NN_search.csv.

        `chosen`: return the chosen rows alone. Raises ValueError for a notebook without such a table.
        """
        rows = findings.search(self.number)
        self.save_table(rows, "search")
        return (rows[rows["chosen"]] if chosen else rows).dropna(axis=1, how="all")

    @property
    def about(self) -> dict[str, str]:
        """What every claim row of the notebook says about its run: profile, seeds, model and data set."""
        given = {name: str(getattr(self, name, "")) for name in ("profile", "model", "dataset")}
        return {**given, "seeds": " ".join(map(str, getattr(self, "train_seeds", [getattr(self, "seed", "")])))}

    def claim(
        self, name: str, estimate: Estimate, given: Estimate | bool | Mapping | None = None, **about: str
    ) -> dict[str, str]:
        """The claim's row: the verdict that its rule, fixed before the run, gives for the estimate.

        Parameters
        ----------
        given : what decides the claim's further condition; of several conditions one entry for each, by name.
        about : changes of `about`, such as another model.

        Raises as `claims.claim_row`, so also for a condition that is missing, and for one that the claim has not.
        """
        if given is not None and not isinstance(given, Mapping):
            conditions = claims.CLAIMS[name].conditions if name in claims.CLAIMS else ()
            given = {condition.name: given for condition in conditions[:1]} or {"": given}
        return claims.claim_row(name, estimate, given, **{**self.about, **about})

    def has_claim(self, name: str) -> bool:
        """Whether there is a claim, and so a rule, of this name."""
        return name in claims.CLAIMS

    def record(self, rows: Sequence[Mapping]) -> pd.DataFrame:
        """Put claim rows into `claims.csv` and `claims.md`; returns what a notebook shows of them."""
        return claims.record_claims(list(rows), self.figures_dir)[claims.SHOWN]

    def findings(self, rows: Sequence[Mapping], *told: Told):
        """The verdicts of claim rows in sentences, and then `orders`, as Markdown."""
        from IPython.display import Markdown

        return Markdown("\n".join([findings.summary(rows), self.orders(*told).data]))

    def orders(self, *told: Told):
        """In which order the rows of tables stand by each quantity, as Markdown.

        Each of `told` is a table in long form, the column that names its rows, and metric -> quantity.
        """
        from IPython.display import Markdown

        return Markdown("\n".join(findings.orderings(table, label, names) for table, label, names in told))
