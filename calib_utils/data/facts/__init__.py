"""Embedded facts: the frozen questions and the script that builds them."""

from calib_utils.data.facts.embedded import PHRASINGS as PHRASINGS
from calib_utils.data.facts.embedded import entity as entity
from calib_utils.data.facts.embedded import fact_rows as fact_rows
from calib_utils.data.facts.embedded import fact_templates as fact_templates
from calib_utils.data.facts.embedded import questions as questions
from calib_utils.data.facts.embedded import rephrased as rephrased
