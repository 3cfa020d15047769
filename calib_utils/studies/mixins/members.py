"""Members: the models that notebook 06 follows, and how their scores are compared over training seeds."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from calib_utils.crossing import Lazy
from calib_utils.types import Estimate

# What trains and measures is named here and imported where it is used: parameters are checked before a run, which
# needs none of it.
_members = Lazy("calib_utils.world.family.study:of")


class Members:
    """For the parameters of notebook 06 (`parameters.LifecycleStudy`)."""

    def members(self):
        """The published series that the parameters name, or the family that is trained here."""
        return _members(self)

    @property
    def labels(self) -> dict[str, str]:
        """What is shown of every condition: metric -> its name."""
        from calib_utils.studies import lifecycle

        return lifecycle.LABELS

    def estimates(self, scores: pd.DataFrame) -> pd.DataFrame:
        """`labels` of every condition, strength and task, means over training seeds (`lifecycle.estimates`)."""
        from calib_utils.studies import lifecycle

        return lifecycle.estimates(scores, self.n_boot, self.seed)

    def differences(
        self, scores: pd.DataFrame, pairs: Mapping[str, tuple]
    ) -> dict[str, tuple[Estimate, dict[str, Estimate | None]]]:
        """By claim, how much larger the ECE of its first condition is (`lifecycle.differences`)."""
        from calib_utils.studies import lifecycle

        return {
            claim: lifecycle.differences(scores, *pair, n_boot=self.n_boot, seed=self.seed)
            for claim, pair in pairs.items()
        }
