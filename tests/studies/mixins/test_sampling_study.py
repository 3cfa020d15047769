"""Notebook 01 asks what no run has reported on, and its tables say what they are of."""

import numpy as np
import pandas as pd
import pytest

from calib_utils import data, semantics
from calib_utils.studies import SamplingStudy
from calib_utils.types import Completion, Record
from calib_utils.world import mechanism

RUN = SamplingStudy(n_samples=10, m_values=[2, 10], n_boot=50)


def scores(n, off=0.0, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 0.95, n)
    correct = (rng.random(n) < np.clip(confidence + off, 0, 1)).astype(int)
    return pd.DataFrame({"confidence": confidence, "correct": correct, "entity": np.arange(n).astype(str)})


def record(question, counts):
    drawn = tuple(
        Completion(f"answer {i}", (i, 1), count, np.log(count / 20), True, 0.5) for i, count in enumerate(counts)
    )
    return Record(question, drawn, (0,), {"temperature": 1.0}, question.id)


def test_questions_that_earlier_runs_reported_on_are_left_out():
    asked = RUN.test_questions()
    used = data.load_questions(RUN.dataset, "test", RUN.n_public_used, RUN.seed)
    assert len(asked) == RUN.n_questions and not {q.id for q in asked} & {q.id for q in used}
    facts, before = RUN.selected(), data.load_questions(RUN.curated, "test", RUN.n_used, RUN.seed)
    assert len(facts) == RUN.n_curated and not {q.id for q in facts} & {q.id for q in before}
    assert {q.split for q in [*asked, *facts]} == {"test"} and {q.split for q in RUN.shots("facts")} == {"train"}


def test_another_data_set_has_no_questions_that_were_reported_on():
    other = SamplingStudy(dataset="facts", n_questions=30)
    assert other.test_questions() == data.load_questions("facts", "test", 30, other.seed)


def test_the_example_is_a_question_whose_answer_has_several_names():
    question = RUN.example()
    assert question.answer == "Canadian dollar" and question.aliases


def test_a_tilt_pays_where_confidence_is_off_and_the_table_bounds_the_error():
    gaps, told = RUN.loss_gaps({"calibrated": scores(400), "underconfident": scores(400, 0.3)})
    assert gaps["underconfident"].low > 0 > gaps["calibrated"].low
    rows = told.set_index("kind")
    assert rows.loc["underconfident", "tilt"] > 0.1 and set(told["metric"]) == {"gap"}
    assert rows["error at most"].tolist() == pytest.approx(mechanism.error_bound(rows["value"]).tolist())


def test_the_most_confident_quarter_keeps_those_that_tie():
    table = pd.DataFrame({"confidence": [0.1, 0.2, 0.4, 0.4, 0.4], "correct": 1})
    assert RUN.most_confident({"kind": table})["kind, top quarter"].index.tolist() == [2, 3, 4]


def test_fewer_draws_promise_more_and_every_budget_has_both_estimators():
    questions = RUN.test_questions()[:30]
    records = [record(question, [1] * 10) for question in questions]
    by_m = RUN.budgets(records, semantics.exact).set_index(["metric", "m", "estimator"])["value"]
    found = [by_m["mean_confidence", m, e] for m, e in ((2, "frequency"), (10, "frequency"), (10, "mass"))]
    assert found == pytest.approx([1 / 2, 1 / 10, 1 / 20])


def test_rungs_merge_less_and_less():
    question = RUN.example()
    one = record(question, [6, 4])
    texts = ("Canadian dollar.", "canadian dollar")
    drawn = tuple(
        Completion(t, c.token_ids, c.count, c.logprob, True, 0.5) for t, c in zip(texts, one.completions, strict=True)
    )
    same = Record(question, drawn, (0,), one.condition, one.key)
    rungs = RUN.rungs([same], semantics.Semantic(RUN.names(dataset="facts")))
    confidence = {name: table["confidence"].item() for name, table in rungs.items()}
    assert confidence == {"semantic": 1.0, "canonical text": 1.0, "exact text": 0.6, "first token": 0.6}
    risks = RUN.risks({"kind": scores(50)})
    assert set(risks["kind"]) == {"kind"} and risks["coverage"].max() == 1
