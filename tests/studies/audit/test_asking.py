"""Audits of tiny models on rows of one's own, the command, and the commands of the README."""

import json
import re
import shlex

import numpy as np
import pytest
from conftest import tiny_model
from peft import LoraConfig, get_peft_model
from server import serving
from test_harness import sample as log_line

from calib_utils import models
from calib_utils.data import own_questions
from calib_utils.errors import ConfigError, DataError, SamplingError
from calib_utils.home import ROOT
from calib_utils.prompts import build_prompts
from calib_utils.records import collecting
from calib_utils.sampling import option_logprobs
from calib_utils.studies.audit import Settings, audit
from calib_utils.studies.audit.asking import named_option, with_letters
from calib_utils.types import Question, Response

WORDS = ("red", "blue", "green", "one", "two", "yes", "no", "#", "A")
SETTINGS = Settings(n_samples=8, n_boot=200, shots=0, max_new_tokens=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model in a folder, and an adapter to it in another."""
    home = tmp_path_factory.mktemp("models")
    lm = tiny_model(scale=3.0)
    lm.model.save_pretrained(home / "base")
    lm.tokenizer.save_pretrained(home / "base")
    lora = get_peft_model(lm.model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    lora.save_pretrained(home / "adapter")
    described = home / "adapter" / "adapter_config.json"
    described.write_text(
        json.dumps(json.loads(described.read_text()) | {"base_model_name_or_path": str(home / "base")})
    )
    return home


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"{first} {second},{first},{second}" for first in WORDS[:5] for second in WORDS[3:]]
    path.write_text("question,answer,group\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def choices(tmp_path):
    path = tmp_path / "choices.jsonl"
    lines = [{"question": f"{word} {i}", "answer": i % 3, "choices": WORDS[:3]} for i, word in enumerate(WORDS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_an_audit_says_how_long_it_takes_and_draws_nothing_twice(folder, rows, tmp_path, monkeypatch):
    told = []
    first = audit(str(folder / "base"), rows, SETTINGS, folder=tmp_path, dtype="float32", report=told.append)
    assert (
        re.search(r"base: 30 questions, .*about \d+ s \([\d.e-]+ s each\)", told[0])
        and first.results[0].verdict in told[1]
    )
    monkeypatch.setattr(collecting, "sample", None)
    again = audit(str(folder / "base"), rows, SETTINGS, folder=tmp_path, dtype="float32", report=told.append)
    assert again.results[0].answered == first.results[0].answered
    (result,) = first.results
    assert len(result.answered) == 30 and all(sum(one.shares) == pytest.approx(1) for one in result.answered)
    assert result.about["draws cut at their longest"].endswith("%") and result.about["shots"] == 0
    assert result.about["first prompt"] == "Question: red one\nAnswer:" and set(result.groups["group"]) == set(
        WORDS[3:]
    )


def test_options_are_rated_where_all_rows_have_them(folder, choices, tmp_path):
    name = str(folder / "base")
    found = audit(name, choices, SETTINGS, folder=tmp_path, dtype="float32", report=str).results[0]
    lm, questions = models.load(name, "float32"), own_questions(choices)
    asked = build_prompts(questions, [], "concise")
    rated = option_logprobs(lm, asked, [[f" {c}" for c in q.choices] for q in questions], lm.tokenizer.eos_token)
    for one, values in zip(found.answered, rated, strict=True):
        assert one.shares == pytest.approx(np.exp(values - np.logaddexp.reduce(values)))
    assert [one.right for one in found.answered] == [i % 3 for i in range(len(WORDS))]
    assert found.about["kind"] == "choice"
    drawn = audit(
        name, choices, Settings("free", 8, shots=0, n_boot=200), folder=tmp_path, dtype="float32", report=str
    )
    assert drawn.results[0].about["kind"] == "free"


def test_an_adapter_is_compared_with_its_base_by_either_name(folder, choices, tmp_path):
    base, adapter = str(folder / "base"), str(folder / "adapter")
    names = [base, adapter, f"{base}+{adapter}"]
    found = audit(names, choices, SETTINGS, folder=tmp_path, dtype="float32", report=str)
    first, second, third = found.results
    assert [one.name for one in found.results] == names
    assert first.answered != second.answered == third.answered
    assert set(found.differences["model"]) == set(names[1:]) and set(found.differences["against"]) == {base}


def test_a_loaded_model_can_be_audited_too(rows, tmp_path):
    found = audit(tiny_model(), rows, SETTINGS, n=6, folder=tmp_path, report=str)
    assert found.results[0].name == "tiny-llama" and len(found.results[0].answered) == 6


def test_what_cannot_be_asked_is_told(folder, rows, choices, tmp_path):
    name = str(folder / "base")
    with pytest.raises(DataError, match="has no choices; use kind='free'"):
        audit(name, rows, Settings("choice"), folder=tmp_path)
    with pytest.raises(ConfigError, match="there is no model to audit"):
        audit([], rows)
    with pytest.raises(ConfigError, match="n_samples is 1; it must be at least 2"):
        Settings(n_samples=1)
    with pytest.raises(ConfigError, match="kind is 'both'"):
        Settings("both")
    with pytest.raises(ConfigError, match="style is 'poem'"):
        Settings(style="poem")
    lm = tiny_model()
    lm.model.get_output_embeddings().weight.zero_()
    silent = Settings(n_samples=2, n_boot=200, shots=0, max_new_tokens=1, style="cot")
    with pytest.raises(SamplingError, match=r"gave no answer in any of 60 draws: .*raise max_new_tokens \(now 1\)"):
        audit(lm, rows, silent, folder=tmp_path, report=str)


def test_a_response_names_an_option_by_letter_or_text():
    question = Question("q", "Which?", "C", "r", "test", "s", choices=("Lima", "C", "A big city"))
    assert with_letters(question) == "Which?\nA. Lima\nB. C\nC. A big city\nAnswer with the letter."
    named = {"A": "Lima", "B.": "C", " (B) C": "C", "lima": "Lima", "C": "A big city", "a big city": "A big city"}
    assert {text: named_option(Response(text), question) for text in named} == named
    assert named_option(Response("Quito"), question) == "quito"


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "name a model and --data to ask it, or --log"),
        (["m", "--log", "x"], "not both"),
        (["m"], "--data is missing"),
        (["m", "--data", "fact"], "did you mean 'facts'"),
        (["m", "--data", "facts", "--endpoint", "http://localhost/v1", "--extra", "{"], "--extra is not JSON"),
        (["m", "--data", "facts", "--endpoint", "http://localhost/v1", "--extra", "1"], "give an object"),
    ],
)
def test_the_command_tells_what_is_missing(words, message, tmp_path, capsys):
    from calib_utils.running.cli import main

    assert main(["audit", *words, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def doors():
    """The section of the README: its commands, and its piece of Python."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Your model\n")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL))
    return text, blocks["bash"].strip().splitlines(), blocks["python"]


def test_the_section_of_the_readme_is_short():
    text, commands, _ = doors()
    assert len(text.strip().splitlines()) <= 25 and len(commands) >= 4


def test_the_commands_of_the_readme_run(folder, rows, tmp_path, capsys, monkeypatch):
    from calib_utils.running.cli import main

    monkeypatch.setattr("calib_utils.running.audit.ROOT", tmp_path)
    log = tmp_path / "samples_arc_easy_2026-01-02T03-04-05.678901.jsonl"
    log.write_text("".join(json.dumps(log_line(i)) + "\n" for i in range(8)))
    lm = models.load(str(folder / "base"), "float32")
    small = ["--n-samples", "4", "--shots", "0", "--max-new-tokens", "3"]
    with serving(lm) as url:
        here = {
            "gemma-3-270m": str(folder / "base"),
            "runs/stages/dpo/step-20": str(folder / "adapter"),
            "rows.csv": str(rows),
            "http://localhost:8000/v1": url,
            "my-model": lm.name,
            "results/": str(tmp_path),
        }
        for line in doors()[1]:
            words = [here.get(word, word) for word in shlex.split(line, comments=True)]
            assert words[:4] == ["python", "-m", "calib_utils", "audit"]
            assert main([*words[3:], *(small if "--data" in words else [])]) == 0, line
            assert "report: " in capsys.readouterr().out
