"""Overview: the claims of all notebooks, as notebook 08 shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from calib_utils import claims
from calib_utils.claims import findings
from calib_utils.errors import CalibError

_COLUMNS = "id notebook kind quantity side limit margin paper_low paper_high".split()
_COLUMNS += "value low high floor n n_decides verdict".split()


class Overview:
    """For the parameters of notebook 08 (`parameters.ClaimsStudy`)."""

    def rows(self) -> list[dict]:
        """The rows of `claims.csv` in `claims_dir`; CalibError if there are none."""
        found = claims.read_claims(self.claims_dir)
        if not found:
            raise CalibError(
                f"there are no claims in {self.claims_dir / 'claims.csv'}; run the other notebooks first"
            )
        return found

    def counts(self, rows: Sequence[Mapping]):
        """How many claims have which verdict, in all and by notebook, as Markdown."""
        from IPython.display import Markdown

        parts = claims.as_table(rows).groupby("notebook")
        lines = [f"- {name}: {findings.counts(part)}" for name, part in parts]
        return Markdown("\n".join([f"**{findings.counts(rows)}**", "", *lines]))

    def tables(self, rows: Sequence[Mapping]):
        """What the verdicts mean, and every claim by kind, as Markdown."""
        from IPython.display import Markdown

        return Markdown(f"{claims.legend()}\n\n{claims.tables(rows)}")

    def intervals(self, rows: Sequence[Mapping]) -> pd.DataFrame:
        """The estimates with their intervals, limits and the papers' figures, for `plots.claims`."""
        return claims.as_table(rows).rename(columns={"ci_low": "low", "ci_high": "high"})[_COLUMNS]

    @property
    def quantities(self) -> dict[str, str]:
        """The kinds of quantities, in the order of the figure's axes (`claims.QUANTITIES`)."""
        return dict(claims.QUANTITIES)
