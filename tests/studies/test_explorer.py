"""The explorer: shares worked out by hand, options that follow from the records, a figure where nothing slides."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from calib_utils import explore, semantics
from calib_utils.config import STAGED
from calib_utils.data import known_names, load_questions
from calib_utils.errors import ConfigError
from calib_utils.studies import explorer
from calib_utils.types import Completion, Record


def row(question_id, texts, draws, logprobs, gold=("Yerevan",), **about):
    same = {"condition": "base", "seed": None, "step": None, "style": "concise", "dataset": "facts", "model": "tiny"}
    same |= {
        "examples": 10,
        "temperature": 1.0,
        "question": f"Question {question_id}?",
        "entity": question_id,
        "group": "capital",
    }
    drawn = {"texts": list(texts), "draws": np.array(draws), "logprobs": np.log(logprobs)}
    return same | {"question_id": question_id, "gold": list(gold), **drawn} | about


ROWS = pd.DataFrame(
    [
        row("a", ["Yerevan", " yerevan", "Baku"], [0, 2, 1, 0], [0.5, 0.2, 0.1, 0.5]),
        row("b", ["Baku", "Yerevan"], [0, 0, 0, 1], [0.6, 0.6, 0.6, 0.3]),
        row("c", ["peso", "euro"], [0, 1, 1, 0], [0.5, 0.4, 0.4, 0.5], ("euro",), group="currency"),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, examples=0),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, condition="dpo", seed=3, step=10),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, condition="dpo", seed=3, step=20),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, condition="dpo", seed=4, step=20),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, condition="dpo, own wrong", seed=3, step=20),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, style="sentence"),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, style="reference"),
        row("a", ["Baku"], [0] * 4, [0.9] * 4, temperature=0.6),
    ]
).astype({name: "Int64" for name in ("seed", "step")})
SEEN = explorer.Explorer(ROWS)
START = SEEN.start(stage="base", style="concise")


def confidences(**changed):
    return SEEN.show(replace(START, **changed)).scores["confidence"].tolist()


def test_shares_are_those_of_the_draws_and_right_is_the_class_of_the_reference():
    assert START.m == 4 and confidences() == [0.75, 0.75, 0.5]
    shown = SEEN.show(START)
    assert shown.scores["correct"].tolist() == [1, 0, 1]  # euro before peso: a tie goes to the first in the alphabet
    assert shown.accuracy == pytest.approx(2 / 3) and shown.gap == pytest.approx(2 / 3 - 2 / 3)
    assert shown.classes.to_dict("list") == {
        "class": ["yerevan", "baku"], "confidence": [0.75, 0.25], "right": [True, False]
    }  # fmt: skip


def test_fewer_draws_are_the_first_ones_and_exact_texts_are_counted_apart():
    assert confidences(m=2) == [0.5, 1.0, 0.5]
    assert confidences(collapse="exact text") == [0.5, 0.75, 0.5]  # blanks at the ends are no text, capitals are
    assert confidences(m=1) == [1.0, 1.0, 1.0]


def test_a_temperature_weighs_every_draw_by_its_probability_to_the_power_of_its_inverse_less_one():
    a = (0.5 + 0.1 + 0.5) / (0.5 + 0.2 + 0.1 + 0.5)  # T = 1/2: weights p^(2 - 1)
    b = 1.8 / (1.8 + 0.3)
    assert confidences(temperature=0.5) == pytest.approx([a, b, 0.5 / 0.9])
    assert confidences(temperature=1.0) == confidences()


def test_weighted_shares_tend_to_the_distribution_at_that_temperature():
    p, rng = np.array([0.5, 0.3, 0.15, 0.05]), np.random.default_rng(0)
    draws = rng.choice(4, size=(1, 200_000), p=p)
    for temperature in (0.5, 0.8, 1.7):
        truth = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        found = explorer.class_shares(draws, np.log(p)[draws], draws.shape[1], temperature)
        np.testing.assert_allclose(found[0], truth, atol=0.01)


def test_scores_are_those_of_the_package_on_the_same_draws():
    questions, names = load_questions("facts", "test", n=40), known_names("facts")
    rng, rows, records = np.random.default_rng(0), [], []
    for question in questions:
        texts = [question.answer, f"the {question.answer}", "Paris", "Peru", ""]
        draws = rng.integers(0, 5, 20)
        about = {"question": question.text, "group": question.relation}
        rows.append(row(question.id, texts, draws, [0.1] * 20, (question.answer, *question.aliases), **about))
        counts = np.bincount(draws, minlength=5)
        found = tuple(Completion(t, (1,), int(k), -1.0, True) for t, k in zip(texts, counts, strict=True) if k)
        records.append(Record(question, found, (1,), {}, ""))
    seen = explorer.Explorer(pd.DataFrame(rows))
    for collapse, function in {"meaning": semantics.Semantic(names), "exact text": semantics.exact}.items():
        scores = semantics.score(records, function)
        shown = seen.show(replace(seen.start(), collapse=collapse)).scores
        for column in ("question_id", "confidence", "correct"):
            assert shown[column].tolist() == scores[column].tolist(), (collapse, column)


def test_only_answers_at_temperature_1_in_an_answer_style_are_offered():
    assert set(SEEN.sources()["style"]) == {"concise", "sentence"}
    assert SEEN.relations(START) == ["all", "capital", "currency"]
    assert SEEN.questions(replace(START, relation="currency")) == ["Question c?"]
    with pytest.raises(ValueError, match="no records at temperature 1"):
        explorer.Explorer(ROWS[ROWS["temperature"] != 1])


def test_stages_tell_models_apart_and_the_lineage_leaves_variants_out():
    trained = ["dpo, step 10, seed 3", "dpo, step 20, seed 3", "dpo, step 20, seed 4", "dpo, own wrong"]
    assert list(SEEN.sources(style="concise")["stage"]) == ["base", "base, 0 examples", *trained]
    assert SEEN.lineage() == ["base", "dpo, step 20, seed 3"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"m": 5}, "m is 5; every question has 4 draws"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive"),
        ({"relation": "river"}, r"relation is 'river'; use one of \['all', 'capital', 'currency'\]"),
        ({"collapse": "x"}, "collapse is 'x'; use one of"),
        ({"question": 3}, "question is 3; there are 3 in 'all'"),
        ({"stage": "ppo"}, "nothing is recorded for .*ppo"),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(changed, message):
    with pytest.raises(ValueError, match=message):
        SEEN.show(replace(START, **changed))


def test_a_moved_slider_changes_numbers_and_picture():
    panel = explore(ROWS, stage="base", style="concise")
    numbers, picture = panel.numbers.value, panel.image.value
    panel.controls["m"].value = 2
    assert panel.choice.m == 2 and panel.numbers.value != numbers and panel.image.value != picture
    panel.controls["stage"].value = "dpo, step 20, seed 4"
    assert panel.shown.accuracy == 0 and "<b>+1.000</b>" in panel.numbers.value
    panel.controls["stage"].value = "base"
    panel.set(relation="currency", m=4)
    assert panel.controls["question"].options == (("Question c?", 0),)
    panel.set(style="sentence")  # which has no currency: all relations are shown
    assert panel.choice.relation == "all" and panel.controls["relation"].value == "all"
    with pytest.raises(ConfigError, match="has no 'draws'"):
        panel.set(draws=3)


def test_the_static_form_is_the_picture_beside_the_widgets():
    form = explore(ROWS)._repr_mimebundle_()
    assert form["image/png"].startswith("iVBORw0KGgo") and "application/vnd.jupyter.widget-view+json" in form


def test_under_the_runner_and_without_widgets_it_is_one_figure(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv(STAGED, "somewhere")
        figure = explore(ROWS, stage="dpo, step 20, seed 3")
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "dpo, step 20, seed 3, facts",
        "Question a? (Yerevan)",
    ]
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    assert len(explore(ROWS).axes) == 2


def test_a_change_takes_at_most_three_tenths_of_a_second_at_400_questions():
    rng = np.random.default_rng(0)
    texts = [f"answer {i}" for i in range(25)]
    rows = [row(f"q{i}", texts, rng.integers(0, 25, 50), rng.random(50), ("answer 3",)) for i in range(400)]
    panel, took = explore(pd.DataFrame(rows)), []
    for m in (49, 40, 30, 20, 10):
        began = time.process_time()
        panel.set(m=m)
        took.append(time.process_time() - began)
    assert sorted(took)[2] <= 0.3
