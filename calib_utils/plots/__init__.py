"""Plots: pictures of numbers that were computed before. No computing, no files but those of `save`."""

from calib_utils.plots.diagrams import STYLE as STYLE
from calib_utils.plots.diagrams import binned_diagram as binned_diagram
from calib_utils.plots.diagrams import claims as claims
from calib_utils.plots.diagrams import class_bars as class_bars
from calib_utils.plots.diagrams import confidence_histogram as confidence_histogram
from calib_utils.plots.diagrams import coverage as coverage
from calib_utils.plots.diagrams import facets as facets
from calib_utils.plots.diagrams import floor_of as floor_of
from calib_utils.plots.diagrams import grid as grid
from calib_utils.plots.diagrams import intervals as intervals
from calib_utils.plots.diagrams import lines as lines
from calib_utils.plots.diagrams import panels as panels
from calib_utils.plots.diagrams import reliability_diagram as reliability_diagram
from calib_utils.plots.diagrams import use_style as use_style
from calib_utils.plots.figures import histogram_panels as histogram_panels
from calib_utils.plots.figures import legend_below as legend_below
from calib_utils.plots.figures import line_panels as line_panels
from calib_utils.plots.figures import metric_panels as metric_panels
from calib_utils.plots.figures import monitoring as monitoring
from calib_utils.plots.figures import regime_panels as regime_panels
from calib_utils.plots.figures import reliability_grid as reliability_grid
from calib_utils.plots.figures import surrogate_panels as surrogate_panels
from calib_utils.plots.saving import save as save
from calib_utils.plots.saving import save_numbers as save_numbers
