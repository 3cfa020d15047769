"""Names of answers: all aliases of all questions of a relation, but none that two answers share."""

from calib_utils import data
from calib_utils.data import names_of
from calib_utils.types import Question


def question(answer, *aliases, relation="capital"):
    return Question(f"{relation}/{answer}", "Which?", answer, relation, "test", "", aliases)


def test_every_alias_names_its_answer():
    names = names_of([question("Bern", "Berne"), question("Rome", "Roma")])
    assert names == {"capital": {"bern": "bern", "berne": "bern", "rome": "rome", "roma": "rome"}}


def test_a_name_of_two_answers_names_neither():
    names = names_of([question("Congo (Kinshasa)", "the Congo"), question("Republic", "Congo")])
    assert "congo" not in names["capital"] and names["capital"]["republic"] == "republic"


def test_relations_do_not_share_names():
    names = names_of([question("Georgia", relation="state"), question("Tbilisi", "Georgia")])
    assert names["state"] == {"georgia": "georgia"} and names["capital"]["georgia"] == "tbilisi"


def test_only_closed_lists_of_answers_are_known():
    assert data.known_names("triviaqa") == {} and set(data.known_names("facts")) >= {"currency", "capital"}
    few = data.load_questions("facts", "train")[:3]
    assert data.known_names("facts", few) == names_of(few)
