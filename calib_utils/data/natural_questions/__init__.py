"""Natural Questions: 2,000 public questions of NQ-Open, embedded (CC BY-SA 3.0), and the script that takes them."""

from calib_utils.data.natural_questions.embedded import FILE as FILE
from calib_utils.data.natural_questions.embedded import NAME as NAME
from calib_utils.data.natural_questions.embedded import questions as questions
