"""What a notebook's run ships is what a machine without models reads: records, options, tables, logs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_model, tiny_tokenizer

from calib_utils import crossing, models, semantics, studies
from calib_utils.config import STAGED
from calib_utils.errors import RecordError
from calib_utils.prompts import build_prompts
from calib_utils.records import cached_table, collect, collect_option_logprobs, shipped
from calib_utils.types import Origin, Prompt, Question, SamplingConfig

QUESTIONS = [
    Question(word, f"Q {word} A", word, "colours", "test", f"{word} .", ("no",), (word, "#"), 0.5)
    for word in ("red", "blue", "green", "one")
]
PROMPTS = [Prompt("Q red A blue ", question.text) for question in QUESTIONS]
CONFIG = SamplingConfig(20, 1.0, 3, ("#",))
OPTIONS = [[f" {choice}" for choice in question.choices] for question in QUESTIONS]
draw = partial(collect, config=CONFIG, label="concise", progress=False)


@pytest.fixture
def noting(monkeypatch, tmp_path):
    """As in a notebook that `run` has started."""
    monkeypatch.setenv(STAGED, str(tmp_path / "figures"))
    monkeypatch.setattr(crossing, "_notes", {})


def ship(folder):
    """What was noted so far, through the files."""
    shipped.write(folder, "02_rl_degradation", crossing.noted())
    return shipped.load(folder, "02_rl_degradation")


def elsewhere(lm):
    """The model on a machine that knows its origin only: nothing of it can be computed or described."""
    gone = {"fingerprint": "", "dtype": "", "device": None, "read_model": None}
    gone["read_tokenizer"] = partial(models.told.Tokenizer, "tokenizer", lm.origin)
    return replace(lm, **gone)


def test_records_come_back_with_all_that_numbers_are_made_of(noting, tmp_path):
    lm = tiny_model()
    first = draw(lm, QUESTIONS, PROMPTS, folder=tmp_path / "r")
    with crossing.reading_from(ship(tmp_path / "s")):
        again = draw(elsewhere(lm), QUESTIONS, PROMPTS, folder=tmp_path / "nothing")
    for record, back in zip(first, again, strict=True):
        assert back.question == record.question and back.reference_ids == record.reference_ids[:1]
        for ours, theirs in zip(record.completions, back.completions, strict=True):
            assert replace(theirs, token_ids=ours.token_ids) == ours
            assert theirs.token_ids[0] == ours.token_ids[0] and len(theirs.token_ids) == len(ours.token_ids)
    for collapse in (semantics.Semantic(), semantics.exact, semantics.first_token):
        for estimator in ("frequency", "mass"):
            scores = (semantics.score(records, collapse, estimator) for records in (first, again))
            pd.testing.assert_frame_equal(*scores, check_exact=True)
    assert not (tmp_path / "nothing").exists()


def test_what_finds_a_record_knows_no_version_dtype_or_device(noting, tmp_path, monkeypatch):
    lm = tiny_model()
    draw(lm, QUESTIONS, PROMPTS, folder=tmp_path / "r")
    shipment = ship(tmp_path / "s")
    monkeypatch.setattr(models, "version", lambda name: "9.9")
    with crossing.reading_from(shipment):
        for change in ({"dtype": "float16"}, {"fingerprint": "of another conversion"}, {"backend": "vllm 1"}):
            assert len(draw(replace(lm, **change), QUESTIONS, PROMPTS, folder=tmp_path)) == len(QUESTIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"config": replace(CONFIG, seed=1)},
        {"config": replace(CONFIG, n_samples=21)},
        {"config": replace(CONFIG, temperature=0.9)},
        {"label": "sentence"},
        {"prompts": [replace(prompt, shared="") for prompt in PROMPTS]},
        {"lm": replace(tiny_model(), origin=Origin("tiny-llama", "dpo", "", 3, 20, "key"))},
    ],
)
def test_a_record_that_is_not_there_is_an_error_with_notebook_condition_and_remedy(noting, tmp_path, change):
    given = {"lm": tiny_model(), "questions": QUESTIONS, "prompts": PROMPTS, "folder": tmp_path / "r"}
    draw(**given)
    with crossing.reading_from(ship(tmp_path / "s")), pytest.raises(RecordError) as error:
        draw(**{**given, **change})
    for part in ("02_rl_degradation", "draws of", "red", "calib_utils run --only 02", "git checkout"):
        assert part in str(error.value)


def test_options_tables_and_what_is_told_of_a_model_come_back_exactly(noting, tmp_path):
    lm = tiny_model()
    rated = collect_option_logprobs(lm, PROMPTS, OPTIONS, tmp_path / "r", lm.eos_token)
    table = pd.DataFrame({"n": [1, 2], "p": [1 / 3, np.nan], "right": [True, False], "text": ["é", None]})
    kept = cached_table(tmp_path / "r", "next-token", lm, ["x", 0], lambda: table)
    assert lm.n_parameters == lm.model.num_parameters() and lm.chat_tokenizer is None
    with crossing.reading_from(ship(tmp_path / "s")):
        told = models.told.told("tiny-llama", replace(lm.origin, stage="sft"))
        assert told.n_parameters == lm.model.num_parameters()
        assert told.eos_token == "<eos>" and told.chat_tokenizer is None
        with pytest.raises(RecordError, match="'generate' is asked of the weights of sft"):
            told.model.generate()
        again = collect_option_logprobs(told, PROMPTS, OPTIONS, tmp_path, told.eos_token)
        pd.testing.assert_frame_equal(cached_table(tmp_path, "next-token", told, ["x", 0], None), kept)
        with pytest.raises(RecordError, match="holds no next-token of sft"):
            cached_table(tmp_path, "next-token", told, ["x", 1], None)
    assert all((a == b).all() for a, b in zip(rated, again, strict=True))


def test_a_chat_is_found_by_its_turns_whatever_the_template_makes_of_them(noting, tmp_path):
    template = tiny_tokenizer()
    template.chat_template = "{% for turn in messages %}Q {{ turn['content'] }} A {% endfor %}"
    lm = replace(tiny_model(), read_tokenizer=lambda: template)
    asked = build_prompts(QUESTIONS, QUESTIONS[:1], "concise", lm.chat_tokenizer)
    first = draw(lm, QUESTIONS, asked, folder=tmp_path / "r")
    with crossing.reading_from(ship(tmp_path / "s")):
        there = build_prompts(QUESTIONS, QUESTIONS[:1], "concise", elsewhere(lm).chat_tokenizer)
        again = draw(elsewhere(lm), QUESTIONS, there, folder=tmp_path)
    assert [r.completions[0].text for r in again] == [r.completions[0].text for r in first]
    assert there != asked


def test_a_run_from_caches_in_another_order_ships_the_same_bytes(noting, tmp_path, monkeypatch):
    def run(*parts):
        monkeypatch.setattr(crossing, "_notes", {})
        lm, asked = tiny_model(), list(zip(QUESTIONS, PROMPTS, strict=True))
        for part in parts:
            questions, prompts = zip(*asked[part], strict=True)
            draw(lm, questions, prompts, folder=tmp_path / "r")
            collect_option_logprobs(lm, prompts, [["red", "blue"]] * len(prompts), tmp_path / "r", lm.eos_token)
        ship(tmp_path / "s")
        return {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}

    first = run(slice(0, 1), slice(1, None))
    assert run(slice(1, None), slice(0, 1)) == first and len(first) == 2


def test_nothing_is_noted_outside_of_a_run_or_by_training(tmp_path, monkeypatch):
    monkeypatch.delenv(STAGED, raising=False)
    monkeypatch.setattr(crossing, "_notes", {})
    draw(tiny_model(), QUESTIONS, PROMPTS, folder=tmp_path)
    monkeypatch.setenv(STAGED, str(tmp_path))
    with crossing.aside():
        draw(tiny_model(), QUESTIONS, PROMPTS, folder=tmp_path / "anew")
        assert tiny_model().eos_token
    assert not crossing.noted()


def test_two_models_under_one_name_cannot_be_shipped(noting, tmp_path):
    draw(tiny_model(), QUESTIONS, PROMPTS, folder=tmp_path)
    with pytest.raises(RecordError, match="two different draws would be shipped under one key"):
        draw(replace(tiny_model(seed=1), origin=tiny_model().origin), QUESTIONS, PROMPTS, folder=tmp_path)


def test_a_reader_sees_answers_draws_and_what_a_notebook_calls_its_models(noting, tmp_path):
    lm, figures = tiny_model(), tmp_path / "figures"
    stage = {"seed": 3, "step": 20, "model": "tiny-llama"}
    origins = [
        lm.origin,
        Origin(stage="dpo", details="rejected minority", key="a", **stage),
        Origin(stage="dpo", details="rejected minority, label_smoothing 0.1", key="b", **stage),
    ]
    for origin in origins:
        records = draw(replace(lm, origin=origin), QUESTIONS, PROMPTS, folder=tmp_path / "r")
    shipped.write(figures / shipped.FOLDER, "02", crossing.noted())
    (figures / "02_manifest.json").write_text('{"parameters": {"model": "tiny-llama", "dataset": "nq_open"}}')
    table = shipped.read("02", figures)
    assert list(table["condition"].unique()) == ["base", "dpo", "dpo, rejected minority, label_smoothing 0.1"]
    assert len(table) == 3 * len(QUESTIONS) and set(table["dataset"]) == {"nq_open"} and set(table["examples"]) == {0}
    assert table["seed"].isna().sum() == len(QUESTIONS) and set(table["group"]) == {"colours"}
    one = table[table["question_id"] == QUESTIONS[-1].id].iloc[-1]
    counts = {i: c.count for i, c in enumerate(records[-1].completions)}
    assert one["gold"] == ["one", "no"] and pd.Series(one["draws"]).value_counts().to_dict() == counts
    assert [records[-1].completions[at].logprob for at in one["draws"]] == list(one["logprobs"])
    with pytest.raises(RecordError, match=r"05\.parquet is missing; restore it .* --only 05"):
        shipped.read("05", figures)


def test_every_study_of_a_model_ships_under_its_own_two_digits():
    assert len({name[:2] for name in studies.STUDIES}) == len(studies.STUDIES)
