from dataclasses import replace

import pytest
from conftest import tiny_tokenizer

from calib_utils.data import load_questions
from calib_utils.prompts import build_prompts, pick_shots

TEST, TRAIN = load_questions("facts", "test", n=20), load_questions("facts", "train")
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_shots_come_from_train_spread_over_relations_and_are_seeded():
    shots = pick_shots(TRAIN, 10, seed=0)
    assert len({shot.relation for shot in shots}) == 10
    assert shots == pick_shots(TRAIN, 10, seed=0) != pick_shots(TRAIN, 10, seed=1)
    assert pick_shots(TRAIN, 0, seed=0) == []
    with pytest.raises(ValueError, match="train split"):
        pick_shots(TEST, 3, seed=0)
    with pytest.raises(ValueError, match="999999"):
        pick_shots(TRAIN, 999_999, seed=0)


@pytest.mark.parametrize("style", ["concise", "sentence"])
def test_plain_prompts_show_examples_in_the_style(style):
    shots = pick_shots(TRAIN, 3, seed=0)
    prompts = build_prompts(TEST, shots, style)
    assert len({prompt.shared for prompt in prompts}) == 1
    answers = [shot.answer if style == "concise" else shot.statement for shot in shots]
    assert all(f"Answer: {answer}\n" in prompts[0].shared for answer in answers)
    assert prompts[0].own == f"Question: {TEST[0].text}\nAnswer:"
    with pytest.raises(ValueError, match="style is 'verse'"):
        build_prompts(TEST, shots, "verse")


def test_chains_are_shown_on_one_line_and_must_be_there():
    shot = replace(TRAIN[0], chain=("Lima is the capital of Peru.", "Peru is in South America."))
    [prompt] = build_prompts(TEST[:1], [shot], "cot")
    assert f"Answer: {' '.join(shot.chain)} The answer is {shot.answer}.\n\n" in prompt.shared
    with pytest.raises(ValueError, match=f"{TRAIN[1].id}.*no worked chain"):
        build_prompts(TEST[:1], TRAIN[1:2], "cot")


def test_a_chat_template_is_used_when_there_is_one():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    shots = pick_shots(TRAIN, 2, seed=0)
    prompt = build_prompts(TEST, shots, "concise", tokenizer)[0]
    assert prompt.chat
    assert prompt.shared.startswith("<user>Answer with a word or a short phrase.\n\n" + shots[0].text)
    assert prompt.shared.count("<assistant>") == 2
    assert prompt.own == f"{TEST[0].text}<end><assistant>"
    [bare] = build_prompts(TEST[:1], [], "sentence", tokenizer)
    assert bare.shared + bare.own == f"<user>Answer in one short sentence.\n\n{TEST[0].text}<end><assistant>"
