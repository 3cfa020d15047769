"""Semantics: collapse functions B from responses to classes, class distributions, semantic confidence. No torch."""

from calib_utils.semantics.collapse import Chain as Chain
from calib_utils.semantics.collapse import Semantic as Semantic
from calib_utils.semantics.collapse import canonical as canonical
from calib_utils.semantics.collapse import exact as exact
from calib_utils.semantics.collapse import final_answer as final_answer
from calib_utils.semantics.collapse import first_token as first_token
from calib_utils.semantics.collapse import number as number
from calib_utils.semantics.collapse import of_style as of_style
from calib_utils.semantics.collapse import right_class as right_class
from calib_utils.semantics.confidence import answers as answers
from calib_utils.semantics.confidence import class_distribution as class_distribution
from calib_utils.semantics.confidence import classes as classes
from calib_utils.semantics.confidence import score as score
from calib_utils.semantics.confidence import semantic_confidence as semantic_confidence
from calib_utils.semantics.confidence import subsample_draws as subsample_draws
from calib_utils.semantics.options import option_probabilities as option_probabilities
from calib_utils.semantics.options import score_options as score_options
from calib_utils.text import NO_ANSWER as NO_ANSWER
from calib_utils.text import canonical_text as canonical_text
