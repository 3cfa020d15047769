"""Metrics: calibration errors and scores of (confidence, correct) pairs, each with its 95 % interval. No torch.

All take `confidence` (n,) in [0, 1] and `correct` (n,) of 0 and 1. `METRICS` lists them with range, label and
kind; the kind decides the interval (`metrics.intervals`).
"""

from calib_utils.metrics.curves import binned_curve as binned_curve
from calib_utils.metrics.curves import confidence_histogram as confidence_histogram
from calib_utils.metrics.curves import reliability_curve as reliability_curve
from calib_utils.metrics.curves import risk_coverage as risk_coverage
from calib_utils.metrics.estimates import average as average
from calib_utils.metrics.estimates import contrast as contrast
from calib_utils.metrics.estimates import evaluate as evaluate
from calib_utils.metrics.estimates import evaluate_classwise as evaluate_classwise
from calib_utils.metrics.estimates import evaluate_seeds as evaluate_seeds
from calib_utils.metrics.estimates import mean_estimate as mean_estimate
from calib_utils.metrics.estimates import mean_over_seeds as mean_over_seeds
from calib_utils.metrics.estimates import noise_floor as noise_floor
from calib_utils.metrics.estimates import relative_reduction as relative_reduction
from calib_utils.metrics.intervals import resample_counts as resample_counts
from calib_utils.metrics.scores import classwise_ece as classwise_ece
from calib_utils.metrics.scores import ece_equal_width as ece_equal_width
from calib_utils.metrics.scores import equal_mass_bins as equal_mass_bins
from calib_utils.metrics.scores import equal_width_bins as equal_width_bins
from calib_utils.metrics.smooth import smece as smece
from calib_utils.metrics.table import METRICS as METRICS
from calib_utils.metrics.table import Metric as Metric
from calib_utils.metrics.tables import compare as compare
from calib_utils.metrics.tables import mean_by as mean_by
from calib_utils.metrics.tables import stack as stack
from calib_utils.metrics.tables import wide as wide
from calib_utils.types import Estimate as Estimate
