import os
from dataclasses import replace

import pytest
from conftest import tiny_model

from calib_utils.errors import RecordError
from calib_utils.records import collect, collecting, read
from calib_utils.types import Prompt, Question, SamplingConfig

WORDS = ("red", "blue", "green", "one", "two", "yes", "no")
QUESTIONS = [
    Question(word, f"Q {word} A", word, "r", "test", f"{word} .", ("no",), (word, "#"), 0.5) for word in WORDS
]
PROMPTS = [Prompt("Q red A blue ", question.text) for question in QUESTIONS]
CONFIG = SamplingConfig(20, 1.0, 3, ("#",))


def gather(folder, lm=None, config=CONFIG, n=7, **options):
    return collect(
        lm or tiny_model(),
        QUESTIONS[:n],
        PROMPTS[:n],
        config,
        folder,
        "concise",
        chunk_size=2,
        progress=False,
        **options,
    )


def counting(monkeypatch):
    calls = []
    original = collecting.sample
    monkeypatch.setattr(
        collecting, "sample", lambda lm, prompts, *rest: calls.append(len(prompts)) or original(lm, prompts, *rest)
    )
    return calls


def test_what_is_written_is_what_is_read(tmp_path):
    written = gather(tmp_path)
    assert {record.key: record for record in read(tmp_path)} == {record.key: record for record in written}
    assert [record.question for record in written] == QUESTIONS
    assert written[0].condition["fingerprint"] == "tiny-llama-0-1.0"
    assert written[0].condition["n_samples"] == 20
    assert written[0].reference_ids == (6,)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_rerun_samples_nothing_and_more_questions_only_the_new_ones(tmp_path, monkeypatch):
    first = gather(tmp_path, n=4)
    calls = counting(monkeypatch)
    assert gather(tmp_path, n=4) == first and calls == []
    assert gather(tmp_path)[:4] == first and sum(calls) == 3


def test_records_that_are_there_need_neither_weights_nor_tokenizer(tmp_path):
    first = gather(tmp_path)

    def never():
        raise AssertionError("read")

    named = replace(tiny_model(), read_model=never, read_tokenizer=never)
    assert gather(tmp_path, named) == first
    with pytest.raises(AssertionError, match="read"):
        gather(tmp_path, named, SamplingConfig(21, 1.0, 3, ("#",)))


def test_a_reference_that_changed_is_tokenized_anew(tmp_path):
    gather(tmp_path)
    changed = [replace(question, answer="two", choices=None) for question in QUESTIONS]
    records = collect(tiny_model(), changed, PROMPTS, CONFIG, tmp_path, "concise", progress=False)
    assert {record.reference_ids for record in records} == {(10,)}


def test_a_run_that_lacked_memory_goes_on_with_fewer_rows(tmp_path, monkeypatch):
    before = gather(tmp_path)
    calls = counting(monkeypatch)
    assert gather(tmp_path, max_rows=7) == before and not calls


@pytest.mark.parametrize(
    "change",
    [
        {"config": SamplingConfig(20, 1.0, 3, ("#",), seed=1)},
        {"config": SamplingConfig(20, 0.9, 3, ("#",))},
        {"lm": tiny_model(seed=1)},
    ],
)
def test_anything_that_decides_the_draws_is_in_the_key(tmp_path, monkeypatch, change):
    before = gather(tmp_path)
    calls = counting(monkeypatch)
    after = gather(tmp_path, **change)
    assert sum(calls) == len(WORDS)
    assert not {record.key for record in before} & {record.key for record in after}


def test_a_corrected_alias_reaches_records_drawn_before(tmp_path, monkeypatch):
    gather(tmp_path)
    corrected = [replace(question, aliases=("better",)) for question in QUESTIONS]
    calls = counting(monkeypatch)
    again = collect(tiny_model(), corrected, PROMPTS, CONFIG, tmp_path, "concise", chunk_size=2, progress=False)
    assert calls == [] and {record.question.aliases for record in again} == {("better",)}


def test_a_killed_run_keeps_its_chunks_and_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    undisturbed = gather(tmp_path / "a")
    original, calls = collecting.sample, []

    def dies_in_the_third_chunk(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(collecting, "sample", dies_in_the_third_chunk)
    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path / "b")
    assert len(read(tmp_path / "b")) == 4
    monkeypatch.setattr(collecting, "sample", original)
    assert gather(tmp_path / "b") == undisturbed
    files = [sorted(path.name for path in (tmp_path / side).rglob("*.parquet")) for side in "ab"]
    assert files[0] == files[1]


def test_a_damaged_file_is_named(tmp_path):
    gather(tmp_path)
    damaged = sorted(tmp_path.rglob("*.parquet"))[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(RecordError, match=f"{damaged.name} is damaged.*delete it"):
        gather(tmp_path)
    damaged.unlink()
    assert len(gather(tmp_path)) == len(WORDS)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    gather(tmp_path, n=2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RecordError, match="No space left"):
        gather(tmp_path)
    assert len(read(tmp_path)) == 2 and not list(tmp_path.rglob("*.tmp"))


def test_bad_input_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no questions"):
        collect(tiny_model(), [], [], CONFIG, tmp_path, "concise")
    with pytest.raises(ValueError, match="2 questions but 1 prompts"):
        collect(tiny_model(), QUESTIONS[:2], PROMPTS[:1], CONFIG, tmp_path, "concise")
