"""Data: questions with reference answers, embedded, generated, public or from a file; `DATASETS` lists the sets."""

from calib_utils.data.facts import entity as entity
from calib_utils.data.facts import rephrased as rephrased
from calib_utils.data.names import names_of as names_of
from calib_utils.data.own import own_questions as own_questions
from calib_utils.data.splits import sample_evenly as sample_evenly
from calib_utils.data.splits import shuffled_by_relation as shuffled_by_relation
from calib_utils.data.splits import split_of as split_of
from calib_utils.data.splits import take_turns as take_turns
from calib_utils.data.table import DATASETS as DATASETS
from calib_utils.data.table import DataSet as DataSet
from calib_utils.data.table import find as find
from calib_utils.data.table import known_names as known_names
from calib_utils.data.table import load_questions as load_questions
from calib_utils.types import SPLITS as SPLITS
