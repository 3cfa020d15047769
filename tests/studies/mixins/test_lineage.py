"""A lineage's questions never meet held-out relations or used questions, and its stages are one definition."""

import pytest

from calib_utils import data
from calib_utils.semantics import Semantic
from calib_utils.studies import CattoStudy, LineageStudy, RepairStudy


def test_held_out_relations_are_asked_out_of_distribution_alone():
    run = CattoStudy(held_out=["currency"], n_out=40)
    assert all(q.relation != "currency" for split in data.SPLITS for q in run.pool(split))
    places = run.places()
    assert list(places) == ["in", "out", "dev", "task"] and {q.relation for q in places["out"]} == {"currency"}
    assert {place: len(asked) for place, asked in places.items()} == {"in": 204, "out": 40, "dev": 102, "task": 24}
    assert all(len(q.chain) == 1 for q in places["task"])
    assert "task" not in CattoStudy(task="").places()


def test_questions_that_earlier_runs_reported_on_are_left_out():
    run = LineageStudy(n_used=100, n_questions=50)
    used = data.sample_evenly(run.pool("test"), 100, run.seed)
    fresh = run.test_questions()
    assert len(fresh) == 50 and not {q.id for q in used} & {q.id for q in fresh}


def test_training_questions_and_examples_are_of_the_train_split():
    run = LineageStudy()
    every = run.train_questions()
    assert {q.split for q in [*every, *run.shots()]} == {"train"} and len(run.shots()) == run.n_shots
    assert sorted(q.id for q in every) == sorted(q.id for q in run.pool("train"))


def test_the_notebooks_of_a_lineage_share_their_stages():
    first, *others = LineageStudy(), CattoStudy(), RepairStudy()
    assert all(run.sft == first.sft and run.dpo == first.dpo for run in others)
    assert first.dpo.parent == first.sft and first.dpo.first == first.sft.n_questions
    assert first.dpo.kept == tuple(first.dpo_steps)
    other = first.dpo_on("samples")
    assert other.rejected == "samples" and other.parent == first.sft
    with pytest.raises(ValueError, match="rejected is 'nothing'"):
        first.dpo_on("nothing")


def test_training_decides_what_is_right_by_names_of_the_train_split(tmp_path):
    run = LineageStudy(runs=str(tmp_path), chat=True)
    fit = run.trainer(base=None)
    own = Semantic(data.known_names("facts", run.pool("train")))
    assert fit.keywords == {
        "base": None,
        "folder": run.stages_dir,
        "chat": True,
        "questions": run.train_questions(),
        "collapse": own,
    }
