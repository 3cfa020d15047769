"""The three tasks against what the models' own forward passes say."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from calib_utils import models, records, semantics
from calib_utils.claims import TASKS
from calib_utils.errors import RecordError
from calib_utils.records import collecting
from calib_utils.sampling import option_logprobs
from calib_utils.studies import lifecycle
from calib_utils.types import Prompt, Question, SamplingConfig

TEXTS = ["Q : red", "A : blue green one", "Q yes", "# no no two : A Q", "green"]


def question(i, answer="red", choices=("red", "blue green", "one")):
    text = ("Q", "A", "# Q")[i % 3]
    return Question(f"q{i}", text, answer, "r", "test", "red", choices=choices)


def test_next_tokens_are_what_one_forward_pass_says(tiny):
    table = lifecycle.next_tokens(tiny, TEXTS, seed=1, batch_size=2)
    assert list(table["question_id"]) == list(range(len(TEXTS)))
    for text, row in zip(TEXTS, table.itertuples(), strict=True):
        ids = models.encode(tiny.tokenizer, text)
        assert 1 <= row.position < len(ids)
        with torch.inference_mode():
            p = tiny.model(torch.tensor([ids])).logits[0, row.position - 1].softmax(dim=-1)
        assert row.confidence == pytest.approx(p.max().item(), abs=1e-5)
        assert row.correct == int(p.argmax().item() == ids[row.position])
    assert table.equals(
        lifecycle.next_tokens(tiny, TEXTS, seed=1, batch_size=3).assign(confidence=table["confidence"])
    )
    positions = [lifecycle.next_tokens(tiny, TEXTS, seed=s)["position"].tolist() for s in range(5)]
    assert len(set(map(tuple, positions))) > 1


def test_a_text_without_a_token_to_predict_is_refused():
    lm = tiny_model()
    lm.tokenizer.bos_token = lm.tokenizer.eos_token  # then plain prompts get no token before the text
    with pytest.raises(ValueError, match="'red' is a single token"):
        lifecycle.next_tokens(lm, ["red"])


def test_generated_confidence_is_the_greedy_answers_exact_probability(tiny, tmp_path):
    questions, prompts = [question(0)], [Prompt("", "Q :")]
    greedy = SamplingConfig(1, 0.0, 4, ("#",))
    found = records.collect(tiny, questions, prompts, greedy, tmp_path, "greedy", progress=False)
    table = lifecycle.generated(found, semantics.canonical)
    ids = models.encode(tiny.tokenizer, "Q :")
    total = 0.0
    for token in found[0].completions[0].token_ids:
        with torch.inference_mode():
            logits = tiny.model(torch.tensor([ids])).logits[0, -1]
        assert token == int(logits.argmax())
        total += logits.log_softmax(dim=-1)[token].item()
        ids.append(token)
    assert table["confidence"].item() == pytest.approx(math.exp(total), rel=1e-4)
    drawn = records.collect(tiny, questions, prompts, SamplingConfig(50, 1.0, 2), tmp_path, "drawn", progress=False)
    with pytest.raises(ValueError, match="several completions"):
        lifecycle.generated(drawn, semantics.canonical)


def test_the_first_token_of_an_answer_is_what_the_forward_pass_says(tiny, tmp_path):
    questions, asked = [question(0), question(1)], [Prompt("", "Q :"), Prompt("", "A : green")]
    greedy = SamplingConfig(1, 0.0, 4, ("#",))
    found = records.collect(tiny, questions, asked, greedy, tmp_path, "greedy", progress=False)
    table = lifecycle.first_tokens(tiny, asked, found)
    for prompt, record, row in zip(asked, found, table.itertuples(), strict=True):
        with torch.inference_mode():
            p = tiny.model(torch.tensor([models.encode(tiny.tokenizer, prompt.own)])).logits[0, -1].softmax(dim=-1)
        assert row.confidence == pytest.approx(p.max().item(), abs=1e-5)
        assert row.correct == int(p.argmax().item() == record.reference_ids[0])
    with pytest.raises(ValueError, match="no tokens of the reference"):
        lifecycle.first_tokens(tiny, asked, [replace(found[0], reference_ids=()), found[1]])


def test_measure_gives_all_tasks_once_and_from_the_folder(tiny, tmp_path, monkeypatch):
    questions = [question(i) for i in range(3)]
    arguments = (questions, TEXTS, semantics.canonical, tmp_path)
    first = lifecycle.measure(tiny, *arguments)
    assert {task: len(table) for task, table in first.items()} == {
        "next token": len(TEXTS), "facts generation": 3, "whole answers": 3, "multiple choice": 3,
    }  # fmt: skip
    assert all(t["confidence"].between(0, 1).all() and t["correct"].isin([0, 1]).all() for t in first.values())
    monkeypatch.setattr(lifecycle, "_foreseen", None)
    monkeypatch.setattr(collecting, "option_logprobs", None)
    monkeypatch.setattr(collecting, "sample", None)
    again = lifecycle.measure(tiny, *arguments)
    assert all(np.allclose(first[task]["confidence"], again[task]["confidence"]) for task in first)
    open_only = [question(0, choices=None)]
    monkeypatch.undo()
    assert "multiple choice" not in lifecycle.measure(tiny, open_only, TEXTS, semantics.canonical, tmp_path)


def scores(confidence, condition, tasks=TASKS):
    table = pd.DataFrame({"question_id": range(200), "confidence": confidence, "correct": [0, 1] * 100})
    about = {"panel": "series", "condition": condition, "strength": 1}
    return [table.assign(task=task, seed=seed, **about) for task in tasks for seed in (0, 1)]


def test_differences_are_means_over_the_papers_tasks():
    both = pd.concat([*scores(0.9, "a"), *scores(0.5, "b"), *scores(0.1, "a", ["new people"])])
    mean, found = lifecycle.differences(both, ("series", "a", 1), ("series", "b", 1), n_boot=100)
    assert tuple(found) == TASKS and all(one.value == pytest.approx(0.4, abs=0.02) for one in found.values())
    assert mean.value == pytest.approx(0.4, abs=0.02) and mean.n == 200
    _, found = lifecycle.differences(both[both["task"] != "next token"], ("series", "a", 1), ("series", "b", 1))
    assert found["next token"] is None
    with pytest.raises(ValueError, match="no estimates"):
        lifecycle.differences(both, ("series", "a", 1), ("series", "c", 1))


def test_rated_options_are_kept_by_everything_that_decides_them(tiny, tmp_path):
    prompts, options = [Prompt("", "Q :"), Prompt("", "A :")], [[" red", " blue green"], [" one", " two", " yes no"]]
    first = records.collect_option_logprobs(tiny, prompts, options, tmp_path)
    plain = option_logprobs(tiny, prompts, options)
    assert all(np.array_equal(a, b) for a, b in zip(first, plain, strict=True))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(records.collect_option_logprobs(tiny, prompts, options, tmp_path), plain, strict=True)
    )
    assert len(list(tmp_path.rglob("*.table"))) == 1
    ended = records.collect_option_logprobs(tiny, prompts, options, tmp_path, "<eos>")
    assert not np.allclose(ended[0], first[0]) and len(list(tmp_path.rglob("*.table"))) == 2
    (kept, _) = sorted(tmp_path.rglob("*.table"))
    kept.write_bytes(kept.read_bytes()[:40])
    with pytest.raises(RecordError, match=r"damaged[\s\S]*computed anew"):
        records.collect_option_logprobs(tiny, prompts, options, tmp_path)
        records.collect_option_logprobs(tiny, prompts, options, tmp_path, "<eos>")


def test_log_steps_end_at_the_last_and_grow_evenly():
    assert lifecycle.log_steps(1000) == (10, 22, 46, 100, 215, 464, 1000)
    assert lifecycle.log_steps(10) == (10,)
    assert lifecycle.log_steps(400, per_decade=2)[-1] == 400
    with pytest.raises(ValueError, match="no schedule"):
        lifecycle.log_steps(5)


def test_steps_are_read_from_revisions():
    assert [lifecycle.step_of(name, 7) for name in ("step143000", "stage2-step10", "main")] == [143000, 10, 7]
