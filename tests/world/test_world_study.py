"""The study of the world: tables with hand-computed values, and a probe that learns what can be learned."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from calib_utils.claims import CLAIMS
from calib_utils.config import profile_parameters
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import LookupWorld
from calib_utils.errors import ConfigError
from calib_utils.studies import STUDIES, WorldStudy
from calib_utils.world import exact, mechanism, pictures, probe, statements, study
from calib_utils.world.training import Reading, read_answers


def test_means_over_seeds_have_students_interval():
    values = [0.1, 0.2, 0.4]
    found = study.seed_estimate(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((np.mean(values), low, high, 3))
    assert study.seed_estimate(values, limits=(0.0, 1.0)).low == 0.0
    assert study.seed_estimate(values, [0.0, 0.1, 0.3]).value == pytest.approx(0.1)
    assert study.seed_estimate([0.3]).low == 0.3


def test_measures_against_the_truth_are_those_computed_by_hand():
    truth = np.tile([0.2, 0.8], 50)
    rows = {"condition": "a", "seed": 0, "confidence": np.tile([0.3, 0.9], 50), "truth": truth}
    rows |= {"choice_confidence": 0.75, "choice_truth": truth, "distance": 0.1}
    (row,) = study.per_seed(pd.DataFrame(rows), ["condition"]).to_dict("records")
    assert row["signed"] == pytest.approx(0.1) and row["accuracy"] == pytest.approx(0.5)
    assert row["choices"] == pytest.approx(0.25) and row["choices_accuracy"] == pytest.approx(0.5)
    assert 0.05 < row["error"] <= 0.1 and row["gap"] > 0 and row["n"] == 100
    table = study.over_seeds(pd.DataFrame([row]), ["condition"], ["signed", "error"])
    assert list(table["metric"]) == ["signed", "error"] and list(table["questions"]) == [100, 100]


def test_the_posterior_of_the_text_that_is_read_is_that_of_a_long_draw():
    world = LookupWorld(slips=0.3, seed=2)
    problem = world.pick(3, "test", 1)
    expected = study.read_posterior(world, problem)[0]
    steps = world.steps(problem.repeat(60_000, axis=0), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(steps[:, -1], minlength=6) / 60_000, expected, atol=0.01)
    sure = study.read_posterior(LookupWorld(seed=2), problem)[0]
    assert sure[world.steps(problem)[0, -1]] == 1 == sure.sum()


def test_the_probe_learns_a_distribution_that_the_model_has_and_not_one_of_noise():
    worlds = [AnswerWorld(n_answers=4, n_forms=3, n_syllables=6, seed=seed) for seed in (0, 1)]
    stack = read_answers(worlds, Reading(150, 64, width=32))[150]
    names = {split: [world.names(split, 40) for world in worlds] for split in ("train", "test")}
    ids = {
        s: exact.stacked([w.prompt_ids(n) for w, n in zip(worlds, found, strict=True)]) for s, found in names.items()
    }
    own = {split: exact.answer_masses(stack, worlds, found) for split, found in names.items()}
    noise = {split: np.random.default_rng(0).dirichlet(np.full(4, 0.3), own[split].shape[:2]) for split in own}
    gaps = [
        probe.kl_gap(stack, ids["train"], p["train"], worlds[0].first_answer, (ids["test"], p["test"]), [0, 1], 60)
        for p in (own, noise)
    ]
    assert gaps[0].shape == (2, 40) and (gaps[0] > -1e-6).all()
    assert gaps[0].mean() < 0.3 < gaps[1].mean()
    with pytest.raises(ValueError, match="rank is 0"):
        probe.kl_gap(stack, ids["train"], own["train"], 0, (ids["test"], own["test"]), [0, 1], rank=0)


def test_statements_are_measured_on_the_last_strength_and_paired_by_seed():
    rows = []
    for seed in (0, 1, 2):
        rows.append({"panel": "method", "condition": "base", "strength": 0.0, "seed": seed, "error": 0.02})
        for step in (10.0, 50.0):
            about = {"panel": "tuning", "condition": "GRPO", "strength": step, "seed": seed}
            rows.append(about | {"error": 0.02 + step / 500 + 0.01 * seed})
    tables = {"answers": pd.DataFrame(rows)}
    found = statements.MEASURED["world-rl-breaks"](tables)
    assert found.value == pytest.approx(0.11) and found.low > 0 and found.n == 3
    table = statements.table({"world-rl-breaks": found})
    assert list(table["id"]) == ["world-rl-breaks"] and list(table["value"]) == [found.value]


def test_a_claim_says_what_its_estimate_is_about_and_nothing_says_it_twice():
    world = {name for name, claim in CLAIMS.items() if claim.where == "world"}
    assert world | set(statements.BESIDE) == set(statements.MEASURED) and not world & set(statements.BESIDE)
    claim, about = CLAIMS["world-catto"], statements.about("world-catto")
    assert (about.kind, about.statement, about.quantity) == (claim.kind, claim.claim, claim.measure)
    assert statements.about("world-bound").kind == "paper"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_seeds": [0]}, "train_seeds: List should have at least 2 items"),
        ({"tune_steps": 30}, r"30 steps are to be reported; the steps \[10, 25, 50, 100\] must rise and hold them"),
        ({"kept_steps": [400]}, r"the steps \[400\] are kept of a reading of 400"),
        ({"slips": 1.0}, r"slips is 1.0; it must lie in \[0, 1\)"),
        ({"n_answers": 1}, "n_answers is 1; a world has 2 to 16"),
        ({"shifts": [2.0]}, "shift is 2.0; it must lie between 0"),
        ({"n_questions": 2000}, "2000 names are asked for; split 'dev' has 1600"),
        ({"probe_pool": 5000}, "5000 names are asked for; split 'train' has 4000"),
    ],
)
def test_impossible_parameters_of_the_notebook_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        WorldStudy.checked(wrong)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_makes_a_world_that_can_exist(profile):
    declared = WorldStudy.model_fields
    run = STUDIES["07_mechanism"].checked(profile_parameters(profile, "07_mechanism", declared=declared))
    world = study.Study(run)
    names = [tuning for tuning, _ in world.tunings()]
    assert len(world.worlds) == len(run.train_seeds) and {"tuning", "method", "ablation"} <= set(names)
    assert all(len(world.names(split)) >= run.n_questions for world in world.worlds for split in ("dev", "test"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The study of profile smoke."""
    given = profile_parameters("smoke", "07_mechanism", declared=WorldStudy.model_fields)
    return study.Study(WorldStudy.checked({**given, "runs": str(tmp_path_factory.mktemp("runs"))}))


def test_known_tilts_have_the_gap_of_the_curve_that_is_drawn(small):
    curve = small.tilt_curve()
    measured = study.points(study.per_seed(small.tilts(), ["strength"]), ["strength"])
    assert curve["t"].iloc[[0, -1]].tolist() == [min(small.run.tilts), max(small.run.tilts)]
    expected = np.interp(measured["strength"], curve["t"], curve["gap"])
    np.testing.assert_allclose(measured["gap"], expected, rtol=0.02, atol=2e-3)
    assert (measured["error"] <= mechanism.error_bound(expected) + 1e-3).all()
    assert curve["gap"].min() == pytest.approx(0, abs=1e-9) and (curve["gap"] >= 0).all()
    figure = pictures.known_tilts(measured, curve)
    (line, *_), (bound, *_) = (ax.get_lines() for ax in figure.axes)
    assert (line.get_ydata() == curve["gap"]).all()
    assert (bound.get_ydata() == mechanism.error_bound(curve["gap"])).all()


def test_scaling_keeps_what_is_chosen_and_moves_how_sure_the_choice_is(small):
    answers = small.answers()
    before, after = (answers[answers["condition"] == name] for name in ("DPO", "DPO, scaled"))
    for column in ("choice_truth", "truth"):
        assert (before[column].to_numpy() == after[column].to_numpy()).all()
    for column in ("choice_confidence", "confidence"):
        assert (before[column].to_numpy() != after[column].to_numpy()).mean() > 0.9
    assert after["choice_confidence"].between(0.25, 1).all()


def test_sentences_stand_beside_short_answers_in_the_panel_of_learnability(small):
    learned = small.learnability()
    settings = learned.groupby("family", sort=False)["setting"].unique()
    steps = ["@20", "@60"]
    assert list(settings["sentences"]) == steps and list(settings["answers"]) == [*steps, "DPO, mode"]
    assert (learned["kl"] > 0).all() and learned["error"].between(0, 1).all()
    assert len(learned[learned["family"] == "sentences"]) == len(steps) * len(small.seeds)


def test_one_model_is_trained_measured_broken_and_repaired_in_one_call():
    started = time.process_time()
    table = study.quickstart(n=300).set_index("stage")
    assert time.process_time() - started < 90
    assert list(table.index) == ["read", "preferences", "CATTO"]
    assert table.loc["preferences", "error"] > 0.1 > 0.04 > max(table.loc[["read", "CATTO"], "error"])
    assert table.loc["preferences", "confidence"] > table.loc["preferences", "accuracy"] + 0.1
    assert (table["accuracy"] > table["best"] - 0.05).all()
