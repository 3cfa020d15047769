"""Notebook 03 asks each model what it can reach, never what was reported on, and trains on other problems."""

import numpy as np
import pandas as pd

from calib_utils import data, semantics
from calib_utils.studies import ChainStudy, chains
from calib_utils.types import Response

RUN = ChainStudy(n_questions=40, n_elsewhere=20, n_few=20, n_boot=50)


def test_conditions_are_every_family_model_and_style():
    conditions = RUN.conditions()
    assert len(conditions) == 8 and {key[1] for key in conditions} == {"base", "trained"}
    few, shots = conditions["arithmetic", "base", "cot"]
    assert len(few) == 20 and {len(q.chain) for q in [*few, *shots]} == {RUN.few_steps}
    every, none = conditions["arithmetic", "trained", "cot"]
    assert len(every) == 40 and {len(q.chain) for q in every} == {1, 2, 3, 4} and none == []
    there, examples = conditions["multihop", "base", "concise"]
    assert {q.split for q in [*every, *there]} == {"test"} and {q.split for q in [*shots, *examples]} == {"train"}
    relations = {name for q in there for name in q.id.split("/")[1:3]}
    assert relations <= set(RUN.known)


def test_questions_that_earlier_runs_reported_on_are_left_out():
    for steps in (0, RUN.few_steps):
        pool = chains.reachable(data.load_questions("arithmetic", "test"), steps or RUN.max_steps)
        used = data.sample_evenly(pool, RUN.n_used, RUN.seed)
        assert not {q.id for q in used} & {q.id for q in RUN.test_questions(steps)["arithmetic"]}


def test_stages_differ_in_style_and_steps_alone():
    stages = RUN.stages()
    assert (stages["concise"].steps, stages["cot"].steps) == (RUN.concise_steps, RUN.sft_steps)
    assert {style: stage.style for style, stage in stages.items()} == {"concise": "concise", "cot": "cot"}
    assert stages["cot"].n_questions == RUN.sft_questions and stages["cot"].seed == RUN.seed
    assert RUN.length("concise") == {} and RUN.length("cot") == {"max_new_tokens": RUN.max_new_tokens}


def test_a_chain_is_compared_by_what_it_ends_with():
    collapse, (question, *_) = RUN.collapse(), RUN.test_questions()["arithmetic"]
    said = Response("1 + 1 = 2. The answer is 7.", ())
    assert collapse["arithmetic", "cot"](said, question) == collapse["arithmetic", "concise"](
        Response("7", ()), question
    )
    assert isinstance(collapse["multihop", "concise"], semantics.Semantic)
    assert RUN.worked(question).rstrip(".").endswith(question.answer)


def test_errors_are_told_apart_by_the_number_of_steps():
    questions = RUN.test_questions()["arithmetic"]
    long = np.array([len(question.chain) > 2 for question in questions])
    confidence = np.where(long, 0.9, 0.5)
    table = pd.DataFrame({"question_id": [q.id for q in questions], "entity": [q.id for q in questions]})
    table = table.assign(confidence=confidence, correct=np.arange(len(table)) % 2)
    by_steps = RUN.by_length({("arithmetic", "trained", "cot"): table}, ["mean_confidence"])
    assert by_steps.set_index("steps")["value"].round(6).to_dict() == {1: 0.5, 2: 0.5, 3: 0.9, 4: 0.9}
    assert RUN.grows(table).low > 0.1
