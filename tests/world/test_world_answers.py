"""Worlds of answers and of look-ups: what is true in them, and what cannot exist."""

import numpy as np
import pytest

from calib_utils.data import known_names, load_questions
from calib_utils.data.world import answers
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import STYLES, LookupWorld, check_same
from calib_utils.data.world.vocabulary import WorldError, check_words
from calib_utils.prompts import build_prompts, reference_completion
from calib_utils.types import SPLITS, Response
from calib_utils.world import house


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_answers": 0}, "n_answers is 0; a world has 2 to 16"),
        ({"n_answers": 17}, "n_answers is 17"),
        ({"n_forms": 0}, "n_forms is 0; a world has 1 to 9"),
        ({"n_syllables": 3}, "n_syllables is 3"),
        ({"ambiguity": 0.0}, "ambiguity is 0.0; it must be a positive number"),
        ({"ambiguity": float("inf")}, "ambiguity is inf"),
        ({"shift": 1.5}, "shift is 1.5; it must lie between 0"),
        ({"style": "cot"}, "style is 'cot'; names are answered in one of"),
    ],
)
def test_impossible_worlds_of_answers_name_the_value(wrong, message):
    with pytest.raises(WorldError, match=message):
        AnswerWorld(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_numbers": 1}, "n_numbers is 1; a world of look-ups has 2 to 10"),
        ({"n_tables": 0}, "n_tables is 0"),
        ({"longest": 0}, "longest is 0"),
        ({"slips": 1.0}, r"slips is 1.0; it must lie in \[0, 1\)"),
    ],
)
def test_impossible_worlds_of_look_ups_name_the_value(wrong, message):
    with pytest.raises(WorldError, match=message):
        LookupWorld(**wrong)


def test_impossible_questions_name_the_value():
    world, lookups = AnswerWorld(), LookupWorld()
    with pytest.raises(WorldError, match=r"n_choices is 9; it must lie in 2\.\.8"):
        world.questions("test", 5, n_choices=9)
    with pytest.raises(WorldError, match="99999 names are asked for; split 'dev' has 1600 of 20 syllables"):
        world.names("dev", 99999)
    for k in (0, 4):
        with pytest.raises(WorldError, match=f"k is {k}; questions of this world take 1 to 3 look-ups"):
            lookups.questions(k, "test", 1, "cot")
    with pytest.raises(WorldError, match="style is 'sentence'; look-ups are answered in one of"):
        lookups.questions(2, "test", 1, "sentence")
    with pytest.raises(WorldError, match="9999 questions of 2 look-ups are asked for"):
        lookups.pick(2, "test", 9999)
    with pytest.raises(WorldError, match="there are no worlds"):
        check_same([])
    with pytest.raises(WorldError, match="the worlds have different words"):
        check_same([AnswerWorld(), AnswerWorld(n_answers=4)])


def test_forms_that_coincide_are_refused():
    with pytest.raises(WorldError, match="the word 'red' occurs 2 times: two forms coincide"):
        check_words(["red", "blue", "red"])
    with pytest.raises(WorldError, match="'dark red' is no word of a world"):
        check_words(["dark red"])


@pytest.mark.parametrize("style", answers.STYLES)
def test_token_ids_are_what_the_tokenizer_gives(style):
    world = AnswerWorld(n_answers=4, n_forms=5, style=style)
    tokenizer, names = world.tokenizer(), world.names("train", 6)
    questions = world.questions("train", 6)
    for question, ids in zip(questions, world.prompt_ids(names), strict=True):
        (prompt,) = build_prompts([question], [])
        assert tokenizer(prompt.own).input_ids == ids.tolist()
    openings = _openings(world, questions[0].text) or [""]
    for a, answer in enumerate(world.answers):
        texts = [opening + form for opening in openings for form in world.forms(answer)]
        assert len(texts) == world.form_probabilities(names).shape[1]
        for f, text in enumerate(texts):
            (ids,) = world.answer_ids(names[:1], np.array([a]), np.array([f]))
            assert [*tokenizer(text).input_ids, 0, 0][: world.longest] == ids.tolist() and ids[-1] == 0
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
    if style == "sentence":
        right = world.answers.index(questions[0].answer)
        reference = world.answer_ids(names[:1], np.array([right]), np.array([0]))
        assert tokenizer.decode(reference[0], skip_special_tokens=True) == questions[0].statement


def test_token_ids_of_look_ups_are_what_the_tokenizer_gives():
    world = LookupWorld()
    tokenizer = world.tokenizer()
    for style in STYLES:
        problems = world.pick(3, "test", 5)
        rows = zip(world.prompt_ids(problems, style), world.answer_ids(world.steps(problems), style), strict=True)
        for question, (prompt, answer) in zip(world.questions(3, "test", 5, style), rows, strict=True):
            assert tokenizer(build_prompts([question], [], style)[0].own).input_ids == prompt.tolist()
            assert [*tokenizer(reference_completion(question, style)).input_ids, 0] == answer.tolist()


def test_the_answer_is_what_the_tables_lead_to():
    world = LookupWorld(n_numbers=5, n_tables=3)
    for problem, question in zip(world.pick(3, "test", 9), world.questions(3, "test", 9, "cot"), strict=True):
        at = problem[0]
        for table in problem[1:]:
            at = world.tables[table, at]
        assert question.answer == str(at) and len(question.chain) == 2
        assert (
            house.collapse(world, "cot")(Response(reference_completion(question, "cot")), question) == question.answer
        )


@pytest.mark.parametrize("style", answers.STYLES)
def test_a_long_draw_has_the_posterior_and_the_forms_of_the_world(style):
    world = AnswerWorld(n_answers=5, n_forms=4, seed=3, style=style)
    for name in world.names("test", 3)[:, None]:
        drawn = world.draw(name.repeat(40_000, axis=0), np.random.default_rng(0))
        for found, p in zip(drawn, (world.posterior(name)[0], world.form_probabilities(name)[0]), strict=True):
            np.testing.assert_allclose(np.bincount(found, minlength=len(p)) / 40_000, p, atol=0.01)


def test_every_form_of_an_answer_is_one_class_and_no_other_text_is():
    world = AnswerWorld(style="sentence")
    (question,) = world.questions("test", 1)
    collapse = house.collapse(world)
    for answer in world.answers:
        texts = [
            f"{opening}{form}" for form in world.forms(answer) for opening in ("", *_openings(world, question.text))
        ]
        assert {collapse(Response(text), question) for text in texts} == {answer}
    assert collapse(Response("maybe"), question) not in world.answers
    assert collapse(Response("maybe red blue"), question) == "red"


def test_styles_differ_in_words_and_not_in_what_is_true():
    short, long = AnswerWorld(), AnswerWorld(style="sentence")
    names = short.names("test", 50)
    assert (short.posterior(names) == long.posterior(names)).all() and (long.names("test", 50) == names).all()
    p = long.form_probabilities(names).reshape(50, len(long.verbs), -1)
    np.testing.assert_allclose(p.sum(axis=1), short.form_probabilities(names))
    assert long.words[: len(short.words)] == short.words


def test_the_world_is_a_row_of_the_table_of_data_sets():
    world = AnswerWorld()
    parts = {split: load_questions("world", split) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [len(world.names(split)) for split in SPLITS]
    assert len({question.text for part in parts.values() for question in part}) == 20**3
    assert known_names("world") == world.known_names()
    picked = load_questions("world", "test", 30, seed=1)
    assert len(picked) == 30 and all(len(q.choices) == 4 and q.answer in q.choices for q in picked)
    shares = np.mean([q.answer == world.answers[0] for q in parts["train"]])
    assert abs(shares - world.posterior(world.names("train"))[:, 0].mean()) < 0.03


def _openings(world, name):
    return [f"{name} {verb} " for verb in world.verbs]


def test_what_is_asked_is_never_read_and_shift_turns_the_truth():
    world = AnswerWorld(n_syllables=8)
    parts = [{tuple(name) for name in world.names(split)} for split in ("train", "dev", "test")]
    assert sum(map(len, parts)) == 8**3 == len(set.union(*parts))
    names = world.names("test", 50)
    distances = [
        np.abs(AnswerWorld(n_syllables=8, shift=s).posterior(names) - world.posterior(names)).sum()
        for s in (0, 0.5, 1)
    ]
    assert distances[0] == 0 < distances[1] < distances[2]
    sure, unsure = (AnswerWorld(n_syllables=8, ambiguity=a).posterior(names).max(axis=1).mean() for a in (0.01, 100))
    assert sure > 0.98 and unsure < 0.14


def test_steps_slip_as_often_as_the_world_says():
    world = LookupWorld(slips=0.25)
    problems = np.repeat(world.pick(1, "train", 1), 40_000, axis=0)
    steps = world.steps(problems, np.random.default_rng(0))
    assert abs((steps != world.steps(problems)).mean() - 0.25) < 0.01
    assert (LookupWorld().steps(problems, np.random.default_rng(0)) == world.steps(problems)).all()
