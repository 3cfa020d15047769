import math

import numpy as np
import pytest
from conftest import WORDS, tiny_model

from calib_utils.data import names_of
from calib_utils.sampling import sample
from calib_utils.semantics import (
    Chain,
    Semantic,
    answers,
    class_distribution,
    exact,
    final_answer,
    first_token,
    number,
    of_style,
    option_probabilities,
    right_class,
    score,
    score_options,
    semantic_confidence,
    subsample_draws,
)
from calib_utils.text import NO_ANSWER, canonical_text
from calib_utils.types import Completion, Prompt, Question, Record, Response, SamplingConfig


def question(answer, aliases=(), relation="r", text="What is it?", id="q"):
    return Question(id, text, answer, relation, "test", f"It is {answer}.", tuple(aliases))


def completion(text, count, p=0.1, token_ids=(1,)):
    return Completion(text, token_ids, count, math.log(p), True)


@pytest.mark.parametrize(
    "one, other",
    [
        ("The Netherlands", "netherlands"),
        ("São Tomé", "sao tome"),
        ("U.S.", "us"),
        ("Washington, D.C.", "Washington DC"),
        ("Nuku'alofa", "Nukualofa"),
        ("1,000", "1000"),
        ("one thousand", "1000"),
        ("1000 km", "1,000 kilometres"),
        ("(+376)", "376"),
        ("seven", "7."),
        ("$18", "18 dollars"),
        ("20 %", "20 percent"),
        ("3.0", "3"),
        ("2 million", "2000000"),
        ("Portuguese (Brazil)", "portuguese"),
        ("Trinidad & Tobago", "Trinidad and Tobago"),
        (" Lima. ", "lima"),
    ],
)
def test_canonical_text_merges(one, other):
    assert canonical_text(one) == canonical_text(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("Niger", "Nigeria"),
        ("18", "19"),
        ("1.5", "15"),
        ("10 km", "10 miles"),
        ("4 July", "4 August"),
        ("20", "twenty one"),
        ("Guinea", "Guinea-Bissau"),
    ],
)
def test_canonical_text_keeps_apart(one, other):
    assert canonical_text(one) != canonical_text(other)


@pytest.mark.parametrize("text", ["", "  ", "...", "Question: What is", "Q: who"])
def test_no_answer_is_a_class_of_its_own(text):
    assert canonical_text(text) == NO_ANSWER


YEN = question("Japanese yen", ["yen", "JPY"], "currency", "What is the currency of Japan?")
NAMES = {"currency": {"us dollar": "us dollar", "american dollar": "us dollar", "japanese yen": "japanese yen"}}


@pytest.mark.parametrize(
    "text, expected",
    [
        (" yen", "japanese yen"),
        (" JPY", "japanese yen"),
        (" The Japanese Yen.", "japanese yen"),
        (" yen, of course", "japanese yen"),
        (" American dollar", "us dollar"),
        (" rupee", "rupee"),
        (" Hong Kong yen", "hong kong yen"),
        ("", NO_ANSWER),
    ],
)
def test_semantic_knows_own_aliases_and_other_answers(text, expected):
    assert Semantic(NAMES)(Response(text), YEN) == expected


CAPITAL = question("Paris", (), "capital", "What is the capital of France?")
KUMASI = question("Ghana", (), "city", "In which country is the city of Kumasi?")
AFRICA = {"city": {"ghana": "ghana", "burkina faso": "burkina faso", "guinea": "guinea", "equatorial guinea": "eq"}}
CITIES = {"capital": {"paris": "paris", "lyon": "lyon", "france": "france"}}
SYMBOL = question("Rn", (), "symbol", "What is the chemical symbol of radon?")


@pytest.mark.parametrize(
    "text, asked, names, expected",
    [
        ("The capital of France is Paris.", CAPITAL, CITIES, "paris"),
        ("Paris is the capital of France.", CAPITAL, CITIES, "paris"),
        ("It is Lyon, not far from Geneva.", CAPITAL, CITIES, "lyon"),
        ("France is the capital of France.", CAPITAL, CITIES, "france"),
        ("The capital is Marseille.", CAPITAL, CITIES, "marseille"),
        ("Kumasi is a city in Ghana, south of Burkina Faso.", KUMASI, AFRICA, "ghana"),
        ("Kumasi is in Equatorial Guinea.", KUMASI, AFRICA, "eq"),
        ("The currency of Japan is the yen.", YEN, NAMES, "japanese yen"),
        ("The currency of Japan is the Hong Kong yen.", YEN, NAMES, "hong kong yen"),
        ("The capital of France.", CAPITAL, {}, NO_ANSWER),
        ("The symbol stands in the table as Rn.", SYMBOL, {"symbol": {"rn": "rn", "in": "in", "as": "as"}}, "rn"),
        ("The chemical symbol of radon is In.", SYMBOL, {"symbol": {"rn": "rn", "in": "in"}}, "in"),
    ],
)
def test_sentences_are_searched_for_their_answer(text, asked, names, expected):
    assert Semantic(names, sentences=True)(Response(text), asked) == expected


def test_reference_statements_of_the_facts_collapse_to_their_answer():
    from calib_utils.data import load_questions
    from calib_utils.types import SPLITS

    facts = [q for split in SPLITS for q in load_questions("facts", split)]
    collapse = Semantic(names_of(facts), sentences=True)
    wrong = [q.id for q in facts if collapse(Response(q.statement), q) != collapse(Response(q.answer), q)]
    assert wrong == []


def test_known_names_leaves_out_names_of_two_answers():
    names = names_of([question("US dollar", ["dollar"]), question("Fijian dollar", ["dollar"]), question("euro")])
    assert names == {"r": {"us dollar": "us dollar", "fijian dollar": "fijian dollar", "euro": "euro"}}


def test_class_distribution_by_hand():
    drawn = [
        completion(" Lima", 6, 0.5),
        completion("Lima.", 2, 0.1),
        completion("Cuzco", 1, 0.05),
        completion("", 1, 0.2),
    ]
    asked = question("Lima")
    frequency = class_distribution(asked, drawn, Semantic())
    assert frequency == {"lima": 0.8, NO_ANSWER: 0.1, "cuzco": 0.1}
    mass = class_distribution(asked, drawn, Semantic(), "mass")
    assert mass == pytest.approx({"lima": 0.6, NO_ANSWER: 0.2, "cuzco": 0.05})
    assert semantic_confidence(frequency) == ("lima", 0.8)
    assert semantic_confidence({"b": 0.5, "a": 0.5}) == ("a", 0.5)


def test_equal_shares_are_equal_and_exact():
    drawn = [completion("a.", 1), completion("b", 3), completion("a", 1), completion("A", 1)]
    drawn += [completion(str(i), 1) for i in range(4)]
    classes = class_distribution(question("b"), drawn, Semantic())
    assert classes["a"] == classes["b"] == 0.3
    assert semantic_confidence(classes) == ("a", 0.3)


def test_a_bare_number_is_asked_for_without_its_unit():
    asked = question("18")
    assert Semantic()(Response("18 dollars"), asked) == Semantic()(Response("$18"), asked) == "18"
    assert Semantic()(Response("18 km"), question("18 miles")) == "18 km"


def test_class_distribution_refuses():
    with pytest.raises(ValueError, match="no completions"):
        class_distribution(question("x"), [], exact)
    with pytest.raises(ValueError, match="estimator"):
        class_distribution(question("x"), [completion("x", 1)], exact, "median")
    with pytest.raises(ValueError, match="sum to"):
        class_distribution(question("x"), [completion("x", 1, 0.9), completion("y", 1, 0.9)], exact, "mass")


def record(asked, completions, reference_ids=(7,)):
    return Record(asked, tuple(completions), reference_ids, {}, "key")


def test_score_by_hand():
    drawn = [completion("Lima", 3, 0.5, (7, 1)), completion("Cuzco", 1, 0.1, (8, 1))]
    table = score([record(question("Lima"), drawn), record(question("Quito"), drawn)], Semantic())
    assert table["correct"].tolist() == [1, 0]
    assert table["confidence"].tolist() == [0.75, 0.75]
    assert table["entropy"][0] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert table["covered"][0] == pytest.approx(0.6)
    tokens = score([record(question("Lima"), drawn)], first_token)
    assert (tokens["prediction"][0], tokens["correct"][0]) == ("7", 1)


def test_score_refuses_a_reference_without_an_answer_and_no_records():
    with pytest.raises(ValueError, match="no answer"):
        score([record(question("..."), [completion("x", 1)])], Semantic())
    with pytest.raises(ValueError, match="no records"):
        score([], Semantic())


def test_answers_shows_what_was_merged():
    table = answers(
        record(question("Lima"), [completion(" Lima", 3), completion("lima.", 1), completion("x", 1)]), Semantic()
    )
    assert table["class"].tolist() == ["lima", "x"]
    assert table["reference"].tolist() == ["yes", ""]
    assert table["responses"][0] == "'Lima' x3, 'lima.' x1"


def test_thin_draws_without_replacement():
    full = record(question("Lima"), [completion("Lima", 30), completion("Cuzco", 20)])
    counts = [c.count for c in subsample_draws(full, 10).completions]
    assert sum(counts) == 10
    assert subsample_draws(full, 10) == subsample_draws(full, 10)
    assert subsample_draws(full, 50) == full
    with pytest.raises(ValueError, match="50 draws"):
        subsample_draws(full, 51)


@pytest.mark.slow
def test_both_estimators_against_enumeration():
    """At small M the maximum of frequencies reads too high and the mass too low; both approach the truth."""
    lm = tiny_model(scale=2.0)
    asked = [question(word, id=word) for word in WORDS[6:12]]
    prompts = [Prompt("Q red A blue ", f"Q {q.answer} A") for q in asked]

    def mean_confidence(m, estimator):
        values = []
        for seed in range(20):
            drawn = sample(lm, prompts, SamplingConfig(m, 1.0, 1, (), seed=seed))
            records = [record(q, c) for q, c in zip(asked, drawn, strict=True)]
            values.append(score(records, first_token, estimator)["confidence"].mean())
        return np.mean(values)

    huge = sample(lm, prompts, SamplingConfig(100_000, 1.0, 1, ()))
    truth = np.mean([max(math.exp(c.logprob) for c in drawn) for drawn in huge])
    bias = {(m, e): mean_confidence(m, e) - truth for m in (5, 50) for e in ("frequency", "mass")}
    assert bias[5, "frequency"] > 0.05
    assert 0 < bias[50, "frequency"] < bias[5, "frequency"] / 2
    assert bias[5, "mass"] < 0
    assert abs(bias[50, "mass"]) < 0.005


def test_options_are_renormalised_and_compared_with_the_reference():
    asked = Question("1", "?", "b", "r", "test", "b.", choices=("a", "b", "c"))
    table = score_options([asked, asked], [np.log([0.02, 0.06, 0.02]), np.log([0.3, 0.1, 0.1])])
    assert list(table["confidence"]) == [pytest.approx(0.6), pytest.approx(0.6)]
    assert list(table["prediction"]) == ["b", "a"] and list(table["correct"]) == [1, 0]
    assert list(table["p_reference"]) == [pytest.approx(0.6), pytest.approx(0.2)]
    with pytest.raises(ValueError, match="question '1' has the options"):
        score_options([asked], [np.log([0.5, 0.5])])


def test_no_options_are_an_error_that_says_so():
    no_questions = r"^there are no questions with options: give one array of log-probabilities per question$"
    for nothing in (lambda: option_probabilities([]), lambda: score_options([], [])):
        with pytest.raises(ValueError, match=no_questions):
            nothing()
    with pytest.raises(
        ValueError, match=r"^question number 1 has no options, so that there are no probabilities of them$"
    ):
        option_probabilities([np.log([0.5, 0.5]), np.array([])])
    with pytest.raises(ValueError, match=r"^there are no classes, so that none is the most probable$"):
        semantic_confidence({})


@pytest.mark.parametrize(
    "text, final",
    [
        ("12 + 5 = 17. The answer is 17.", "17"),
        (" 12 + 5 = 17. So the answer is: **17**", "17"),
        ("The answer is 5. No, wait: the answer is 17", "17"),
        ("He has 17 left. #### 17", "17"),
        ("so it is \\boxed{17} apples", "17"),
        ("Answer: 1,017 apples.", "1017"),
        ("The answer is $17.50.", "17.5"),
        ("the answer must be seventeen.", "17"),
        ("The answer is -3.", "-3"),
        ("The final answer is about 17 or so.", "17"),
        ("12 + 5 = 17.", None),
        ("12 + 5 = 17. The answer is", None),
        ("", None),
        ("12 + 5", None),
    ],
)
def test_the_final_answer_of_awkward_chains(text, final):
    found = Chain(number)(Response(text), question("17"))
    assert found == (NO_ANSWER if final is None else final)
    assert (final_answer(text) is None) == (final is None)


def test_final_answers_are_compared_by_the_inner_function():
    sol = question("Peruvian sol", ("sol",))
    collapse = Chain(Semantic())
    assert collapse(Response("Lima is in Peru. The answer is the sol."), sol) == right_class(sol, collapse)
    assert collapse(Response("Lima is in Chile. The answer is the peso."), sol) == "peso"


def test_a_chain_without_an_answer_is_a_class_of_its_own_and_stays_counted():
    record = Record(question("17"), (completion("12 + 5", 3), completion("The answer is 17.", 1)), (1,), {}, "k")
    (row,) = score([record], Chain(number)).to_dict("records")
    assert (row["prediction"], row["confidence"], row["correct"]) == (NO_ANSWER, 0.75, 0)


@pytest.mark.parametrize(
    "text, found",
    [("17 apples", "17"), (" seventeen", "17"), ("she has 1,017 now", "1017"), ("1,2", "1"), ("none", "none")],
)
def test_number_takes_the_first_number(text, found):
    assert number(Response(text), question("17")) == found


def test_the_style_of_an_answer_chooses_how_it_is_compared():
    names = {"currency": {"sol": "peruvian sol"}}
    assert of_style("concise", names) == Semantic(names) and of_style("concise") == Semantic()
    assert of_style("sentence", names) == of_style("concise", names, chat=True) == Semantic(names, sentences=True)
    assert of_style("cot", names) == Chain(Semantic(names))
