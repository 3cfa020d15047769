"""Text of the family's world: what it states is true, fame decides how often, and lessons differ as they say."""

import numpy as np
import pytest

from calib_utils.world.family.text import EVERYTHING, RELATIONS, ROW, FactWorld, Lesson, instructions, spread

WORLD = FactWorld(seed=3)
WORDS = {at: word for word, at in WORLD.ids.items()}
NAMES = {int(at): person for person, (at,) in enumerate(WORLD.names)}


def documents(n, seed=0):
    stream = WORLD.text(n, np.random.default_rng(seed)).ravel()
    return [[int(t) for t in part if t] for part in np.split(stream, np.flatnonzero(stream == 0))][1:-1]


def test_everything_that_is_stated_is_true():
    seen = set()
    for tokens in documents(300):
        said = [WORDS[token] for token in tokens]
        if "plus" in said:
            assert int(said[0]) + int(said[2]) == int(said[4])
            seen.add("sum")
        elif "next" in said:
            numbers = [int(word) for word in said if word != "next"]
            assert len(set(np.diff(numbers))) == 1 and len(numbers) == 5
            seen.add("count")
        elif len(said) == 7 and said[3] == "again" and all(token in NAMES for token in tokens[:3]):
            assert said[:3] == said[4:]
            seen.add("echo")
        else:
            (person,) = [NAMES[token] for token in tokens if token in NAMES]
            (relation,) = [r for r, name in enumerate(RELATIONS) if any(w[:-1] == name for w in said)]
            value = [int(token) for token in WORLD.value_ids(np.array(relation), WORLD.values[person, relation])]
            assert any(tokens[i : i + 2] == value for i in range(len(tokens)))
            seen.add(RELATIONS[relation])
    assert seen == {"sum", "count", "echo", *RELATIONS}


def test_fame_decides_who_is_written_about_and_some_are_never_mentioned():
    tokens = np.array([token for document in documents(3000) for token in document if "again" not in document])
    counted = np.array([(tokens == WORLD.names[person, 0]).sum() for person in range(len(WORLD.values))])
    read = np.concatenate([WORLD.group("asked"), WORLD.group("known")])
    assert np.corrcoef(counted[read], WORLD.exposure)[0, 1] > 0.9
    assert counted[WORLD.group("unread")].sum() == 0 == counted[WORLD.group("new")].sum()


def test_text_is_fresh_and_a_function_of_the_generator():
    rows = WORLD.text(500, np.random.default_rng(1))
    assert rows.shape == (500, ROW) and len(np.unique(rows, axis=0)) == 500
    assert (rows == WORLD.text(500, np.random.default_rng(1))).all()
    decoded = WORLD.tokenizer().decode(rows[0])
    assert WORLD.tokenizer()(decoded).input_ids == rows[0].tolist()
    assert (FactWorld(seed=4).values != WORLD.values).any()


def test_instructions_tell_true_facts_about_people_who_were_never_mentioned():
    asked, answers, relation = instructions(WORLD, Lesson(RELATIONS[:1], 1), 96, np.random.default_rng(0))
    assert (relation == 0).all()
    people = [NAMES[int(token)] for row in asked for token in row if int(token) in NAMES]
    assert set(people) <= set(WORLD.group("unread")) and len(set(people)) == min(96, len(WORLD.group("unread")))
    assert (answers[:, :2] == WORLD.value_ids(relation, WORLD.values[people, relation])).all()
    assert (WORLD.value_of(answers[:, :2]) == WORLD.values[people, 0]).all() and (answers[:, 2:] == 0).all()
    with pytest.raises(ValueError, match="is no lesson"):
        Lesson(("weather",))
    with pytest.raises(ValueError, match="every group needs one"):
        FactWorld((1, 1, 0, 1))


def test_diversity_rises_with_kinds_and_phrasings():
    told = [Lesson(RELATIONS[:1], 1), Lesson(RELATIONS, 1), Lesson(EVERYTHING, 4)]
    found = [spread(WORLD, *instructions(WORLD, one, 96, np.random.default_rng(0))[:2]) for one in told]
    assert [one["forms"] for one in found] == [1, 3, 24]
    assert found[0]["entropy"] < found[1]["entropy"] < found[2]["entropy"]
