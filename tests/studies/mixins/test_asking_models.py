"""Questions and draws as a notebook's parameters say: on a tiny model, the same as by the functions themselves."""

import numpy as np
import pytest
from conftest import tiny_model

from calib_utils import data, prompts, records
from calib_utils.studies import LineageStudy
from calib_utils.types import Question

QUESTIONS = [Question(f"q{i}", "Q A", "red", "colour", "test", "", choices=("red", "blue")) for i in range(3)]


@pytest.fixture
def run(tmp_path):
    return LineageStudy(runs=str(tmp_path), n_samples=4, seed=2)


def test_questions_and_names_are_those_of_the_data_set():
    own = LineageStudy()
    assert own.load_questions("dev") == data.load_questions("facts", "dev")
    assert own.load_questions("dev", 5) == data.load_questions("facts", "dev", 5, 0)
    assert own.load_questions("dev", dataset="arithmetic") == data.load_questions("arithmetic", "dev")
    assert own.names() == data.known_names("facts") and own.names([]) == {}


def test_a_file_is_read_for_the_notebooks_own_data_set_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "who?", "answer": ["him"]}\n' * 40)
    own = LineageStudy(dataset="nq_open", data_path=str(path))
    assert {q.text for split in data.SPLITS for q in own.load_questions(split)} == {"who?"}
    assert own.load_questions("dev", dataset="facts") == data.load_questions("facts", "dev")


def test_draws_are_those_of_the_records(run):
    lm = tiny_model()
    drawn = run.draw(lm, QUESTIONS)
    asked, config = prompts.build_prompts(QUESTIONS, []), prompts.sampling_config("concise", 4, 2)
    same = records.collect(lm, QUESTIONS, asked, config, run.records_dir, "concise", max_rows=run.max_rows)
    assert drawn == same and all(sum(c.count for c in record.completions) == 4 for record in drawn)


def test_what_is_asked_otherwise_is_drawn_otherwise(run):
    lm, first = tiny_model(), QUESTIONS[:1]
    (greedy,) = run.draw(lm, first, n_samples=1, temperature=0.0)
    assert greedy.condition["temperature"] == 0 and sum(c.count for c in greedy.completions) == 1
    (short,) = run.draw(lm, first, max_new_tokens=2, label="short")
    assert short.condition["label"] == "short" and max(len(c.token_ids) for c in short.completions) <= 2
    given = prompts.build_prompts(first, QUESTIONS[1:])
    assert run.draw(lm, first, given=given) == run.draw(lm, first, QUESTIONS[1:])


def test_options_end_as_examples_do_or_as_trained_answers_do(run):
    lm = tiny_model()
    for shots, ending in (([], lm.tokenizer.eos_token), (QUESTIONS[2:], prompts.ENDING)):
        asked = prompts.build_prompts(QUESTIONS[:2], shots)
        options = [[" red", " blue"]] * 2
        expected = records.collect_option_logprobs(lm, asked, options, run.records_dir, ending, run.max_rows)
        found = run.option_logprobs(lm, QUESTIONS[:2], shots)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
