"""Keys of records, tables and trained stages are those of the first releases: what is computed stays found."""

from functools import partial

import pytest

from calib_utils import semantics
from calib_utils.records.keys import condition_key, record_key, table_key
from calib_utils.storage import digest, text_digest
from calib_utils.training import CATTOOptions, Stage, label_smoothed
from calib_utils.training.key import stage_key
from calib_utils.types import Prompt, Question

MODEL = {
    "model": "some-model",
    "fingerprint": "0123456789abcdef",
    "dtype": "float32",
    "device": "cpu",
    "python": "3.11.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
}
CONDITION = {
    "label": "concise",
    **MODEL,
    "n_samples": 4,
    "temperature": 0.5,
    "max_new_tokens": 3,
    "stop": ["\n"],
    "seed": 7,
    "max_rows": 128,
}
LIBRARIES = {"trl": "1.16.0", "peft": "0.21.2", "transformers": "5.23.0", "torch": "2.13.0"}
QUESTIONS = [
    Question(
        "facts/1",
        "Q red :",
        "blue",
        "capital",
        "train",
        "A : blue",
        ("green",),
        ("blue", "red"),
        0.25,
        ("one .", "two ."),
    ),
    Question("x/2", "Q two :", "one", "r", "train", "s"),
]
PROMPTS = [Prompt("Q one A : two ", "Q red : A :"), Prompt("", "Q two : A :", True)]
NAMES = {"capital": {"lima": "lima", "city of lima": "lima"}}


def test_digests_are_those_of_plain_values():
    assert text_digest("abc", 8) == "ba7816bf" and text_digest("a\nb") == "7e18f737311b2dc3"
    assert digest([1, [2, "x"]]) == "28cb178e63325f82" and digest([1, {"b": 2, "a": 1}]) == "9e1c4b30ac28454c"


def test_keys_of_records_are_stable():
    assert condition_key(CONDITION) == "7154eeb1bd512615"
    keys = [record_key(CONDITION, *pair) for pair in zip(PROMPTS, [q.id for q in QUESTIONS], strict=True)]
    assert keys == ["d2f642699b8988bd", "03c8ccefd960a658"]


def test_keys_of_tables_are_stable():
    assert table_key(MODEL, [["a", "b"], 3]) == "9697c0cd00466f25"
    options = [[" red", " blue"], [" one"]]
    parts = [[p.shared, p.own, p.chat, *texts] for p, texts in zip(PROMPTS, options, strict=True)]
    assert table_key(MODEL, ["<eos>", parts]) == "9f9845bbd0bd658a"


SFT = Stage("sft", 4, 1e-3, n_questions=2, batch_size=2, schedule="linear")
CATTO = Stage(
    "catto",
    2,
    1e-4,
    parent=SFT,
    n_questions=2,
    rejected="distractors",
    keep=(1,),
    options=CATTOOptions(calibration_weight=1.0, rejected_side="z"),
)
CDPO = Stage("dpo", 2, 1e-4, parent=CATTO, parent_step=1, n_questions=2, options=label_smoothed(0.1))
GRPO = Stage("grpo", 2, 1e-4, parent=SFT, n_questions=2, beta=0.0)
COT = Stage("sft", 4, 1e-3, n_questions=1, style="cot")
PRETRAIN = Stage("pretrain", 4, 1e-3, n_questions=1, lora_rank=0)


def key(stage, collapse):
    parent = stage.parent and key(stage.parent, collapse)
    asked = [Prompt("", f"Question: {question.text}\nAnswer:") for question in QUESTIONS[: stage.n_questions]]
    return stage_key(stage, parent, MODEL, LIBRARIES, asked, QUESTIONS[: stage.n_questions], collapse)


@pytest.mark.parametrize(
    "stage, collapse, expected",
    [
        (CATTO, semantics.Semantic(NAMES, sentences=True), "f1b8a2c039b790d5"),
        (CDPO, semantics.Semantic(NAMES), "e4232befdc466c95"),
        (GRPO, semantics.canonical, "f64fdf3fe1e8278a"),
        (COT, semantics.Chain(semantics.number), "807a6934597e5f2b"),
        (PRETRAIN, semantics.exact, "80458156aa4ec2ff"),
        (SFT, partial(semantics.canonical), "bb10c09990f81afd"),
        (SFT, semantics.first_token, "b9ae1ea63e6d256e"),
    ],
)
def test_keys_of_trained_stages_are_stable(stage, collapse, expected):
    assert key(stage, collapse) == expected
