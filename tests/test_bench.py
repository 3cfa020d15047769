import pytest
from conftest import tiny_model

from calib_utils import bench
from calib_utils.data import Question


def test_sampling_bench_reports_ratios_of_medians(monkeypatch):
    words = ("red", "blue", "green", "one", "two", "yes")
    questions = [Question(word, f"{word} ?", word, "r", "dev", word) for word in words]
    monkeypatch.setattr(bench, "load_questions", lambda *_, **options: questions[: options.get("n")])
    monkeypatch.setattr(bench, "pick_shots", lambda *_: [])
    monkeypatch.setattr(
        bench, "by_generate", lambda lm, prompts, config: [["red"] * config.n_samples for _ in prompts]
    )
    lm = tiny_model()
    table = bench.sampling(lm, n_questions=2, n_generate=1, rounds=3).set_index(["method", "m"])
    slow, fast = table.loc[("generate", 50)], table.loc[("merged", 50)]
    assert fast["speedup_over_generate"] == pytest.approx(slow["seconds_per_question"] / fast["seconds_per_question"])
    assert table.loc[("merged", 10), "growth_from_m10"] == 1
    assert (table["low"] <= table["seconds_per_question"]).all() and (
        table["high"] >= table["seconds_per_question"]
    ).all()
