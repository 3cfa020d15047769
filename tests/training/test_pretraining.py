"""The family trained from scratch: what it reads, how it starts, how it is trained, and what training does to it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from calib_utils import data, models, prompts, semantics, training
from calib_utils.data import facts
from calib_utils.errors import DataError, ModelError
from calib_utils.training import Stage, pretraining
from calib_utils.training.pretraining import Shape

TRAIN = data.load_questions("facts", "train")


def test_documents_state_and_ask_every_fact_and_follow_popularity():
    questions = sorted(TRAIN[:50], key=lambda q: q.popularity)
    texts, p = pretraining.documents(questions)
    assert len(texts) == len(questions) * facts.PHRASINGS == len(p) and p.sum() == pytest.approx(1)
    assert texts[0] == questions[0].statement
    assert texts[50].startswith("Question: ") and texts[50].endswith(f"\nAnswer: {questions[0].answer}")
    exposure = p.reshape(facts.PHRASINGS, 50).sum(axis=0)
    asked = {prompt.own for prompt in prompts.build_prompts(data.rephrased(questions, 0), [])}
    assert len(asked) == 50 and not any(text.startswith(tuple(asked)) for text in texts)  # kept for asking
    assert (np.diff(exposure) >= -1e-12).all()
    rarest, best = questions[0], questions[-1]
    assert exposure[-1] / exposure[0] == pytest.approx((1.05 - rarest.popularity) / (1.05 - best.popularity))
    assert p[:50].sum() == pytest.approx(0.5)


def test_entities_of_the_test_split_are_never_read():
    with pytest.raises(DataError, match="not of the train split"):
        pretraining.documents(data.load_questions("facts", "test")[:1])
    with pytest.raises(DataError) as caught:
        pretraining.documents([TRAIN[0], replace(TRAIN[1], id="q/1", popularity=None)])
    assert str(caught.value) == (
        "question 'q/1' has no popularity, which decides how often the family reads it: take "
        "questions of the embedded facts"
    )
    subjects = {
        row["subject"] for row in facts.fact_rows() if row["split"] == "test" and row["relation"] == "capital"
    }
    asked = {row["subject"] for row in facts.fact_rows() if row["split"] == "train" and row["relation"] == "capital"}
    assert subjects and not subjects & asked


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    return pretraining.untrained(Shape(32, 1), TRAIN[:200], folder, seed=0, vocabulary=400), folder


def test_the_untrained_model_is_made_once_and_by_its_seed(start):
    path, folder = start
    assert path.name == "untrained-780a6c54"  # a part of the keys of all that is trained from it
    changed = (path / "model.safetensors").stat().st_mtime_ns
    assert pretraining.untrained(Shape(32, 1), TRAIN[:200], folder, seed=0, vocabulary=400) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == changed
    other = pretraining.untrained(Shape(32, 1), TRAIN[:200], folder, seed=1, vocabulary=400)
    assert (other / "model.safetensors").read_bytes() != (path / "model.safetensors").read_bytes()
    lm = models.load(str(path), "float32")
    assert len(lm.tokenizer) == 400 and lm.model.config.tie_word_embeddings
    text = "Question: Où est Ōsaka?\nAnswer: Japan"
    assert lm.tokenizer.decode(lm.tokenizer(text).input_ids) == text  # bytes: no text is unknown
    with pytest.raises(ValueError, match="multiple of 32"):
        Shape(40, 1)


def test_rows_are_packed_documents(start):
    lm = models.load(str(start[0]), "float32")
    rows = pretraining.rows(lm.tokenizer, TRAIN[:200], 7, seed=3)
    assert [len(row) for row in rows] == [pretraining.ROW] * 7
    assert (
        rows
        == pretraining.rows(lm.tokenizer, TRAIN[:200], 7, seed=3)
        != pretraining.rows(lm.tokenizer, TRAIN[:200], 7, seed=4)
    )
    stream = [token for row in rows for token in row]
    texts = set(pretraining.documents(TRAIN[:200])[0])
    pieces = lm.tokenizer.decode(stream).split(pretraining.EOS)[:-1]
    assert {piece.removeprefix(pretraining.BOS) for piece in pieces} <= texts


def pretrain(steps, keep=(), **options):
    return Stage("pretrain", steps, 5e-3, n_questions=200, batch_size=8, lora_rank=0, keep=keep, **options)


def test_training_lowers_the_loss_and_every_kept_step_loads(start):
    path, folder = start
    lm = models.load(str(path), "float32")
    done = training.train(pretrain(30, (3, 10)), lm, TRAIN[:200], semantics.canonical, folder, progress=False)
    assert done.log["loss"].iloc[-1] < 0.7 * done.log["loss"].iloc[0]
    prints = {step: done.load(step).fingerprint for step in (3, 10, 30)}
    assert len({*prints.values(), lm.fingerprint}) == 4
    assert not any("step-" in about["model"] for about in models.loaded())  # results are no ingredients
    again = training.train(pretrain(30, (3, 10)), lm, TRAIN[:200], semantics.canonical, folder, progress=False)
    assert again.load().fingerprint == prints[30]


def test_a_stage_can_start_from_any_kept_step_of_its_parent(start):
    path, folder = start
    lm = models.load(str(path), "float32")
    parent = pretrain(30, (3, 10))
    tuned = Stage("sft", 1, 1e-9, parent=parent, parent_step=10, first=200, n_questions=8, batch_size=4, lora_rank=0)
    done = training.train(tuned, lm, TRAIN[:208], semantics.canonical, folder, progress=False)
    base = training.train(parent, lm, TRAIN[:208], semantics.canonical, folder, progress=False)
    near = [p for p, q in zip(done.load().model.parameters(), base.load(10).model.parameters(), strict=True)
            if (p - q).abs().max() < 1e-6]  # fmt: skip
    assert len(near) == len(list(done.load().model.parameters()))
    with pytest.raises(ValueError, match="parent_step is 7"):
        Stage("sft", 1, 1e-3, parent=parent, parent_step=7, lora_rank=0)


def test_a_checkpoint_series_in_a_folder_is_loaded_by_revision(start):
    path, folder = start
    lm = models.load(str(path), "float32")
    done = training.train(pretrain(30, (3, 10)), lm, TRAIN[:200], semantics.canonical, folder, progress=False)
    assert models.load(f"{done.folder}@step-10", "float32").fingerprint == done.load(10).fingerprint


def test_a_checkpoint_series_in_the_hubs_layout_is_loaded_by_revision(start, tmp_path, monkeypatch):
    """The cache of the hub: refs name commits, snapshots hold them; nothing is downloaded."""
    path, folder = start
    lm = models.load(str(path), "float32")
    done = training.train(pretrain(30, (3, 10)), lm, TRAIN[:200], semantics.canonical, folder, progress=False)
    home = tmp_path / "models--someone--series"
    (home / "refs").mkdir(parents=True)
    for i, step in enumerate((3, 10)):
        commit = f"{i}" * 40
        (home / "refs" / f"step{step}").write_text(commit)
        shutil.copytree(done.folder / f"step-{step}", home / "snapshots" / commit)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = {step: models.load(f"someone/series@step{step}", "float32") for step in (3, 10)}
    assert found[3].fingerprint != found[10].fingerprint
    for step, lm in found.items():
        same = zip(lm.model.parameters(), done.load(step).model.parameters(), strict=True)
        assert all((p == q).all() for p, q in same)
    with pytest.raises(ModelError, match="someone/series@step4"):
        models.load("someone/series@step4", "float32")


def test_an_overtrained_model_is_overconfident_and_a_well_trained_one_calibrated(tmp_path):
    """A handful of documents read hundreds of times against the whole corpus read once, on held-out texts."""
    from calib_utils import metrics
    from calib_utils.studies import lifecycle

    held_out = [q.statement for q in data.load_questions("facts", "dev", n=600, seed=0)]
    path = pretraining.untrained(Shape(64, 1), TRAIN, tmp_path, vocabulary=600)
    lm = models.load(str(path), "float32")
    gap = {}
    for name, read, steps in (("over", TRAIN[:40], 150), ("well", TRAIN, 60)):
        stage = Stage("pretrain", steps, 5e-3, n_questions=len(read), batch_size=16, lora_rank=0)
        done = training.train(stage, lm, read, semantics.canonical, tmp_path / name, progress=False)
        table = lifecycle.next_tokens(done.load(), held_out)
        gap[name] = metrics.evaluate(table["confidence"], table["correct"], "overconfidence", n_boot=200)
    assert gap["over"].low > 0.1
    assert abs(gap["well"].value) < 0.05
