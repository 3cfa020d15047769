import pytest
import torch
from conftest import tiny_model

from calib_utils import plots
from calib_utils.running import bench
from calib_utils.sampling import sample
from calib_utils.types import Prompt, Question, SamplingConfig


@pytest.mark.parametrize("name, most, options", [("sampling", 50, {}), ("chains", 20, {"max_new_tokens": 8})])
def test_sampling_bench_reports_ratios_of_medians(name, most, options, monkeypatch):
    words = ("red", "blue", "green", "one", "two", "yes")
    questions = [Question(word, f"{word} ?", word, "r", "dev", word) for word in words]
    monkeypatch.setattr(bench, "load_questions", lambda *_, **options: questions[: options.get("n")])
    monkeypatch.setattr(bench, "pick_shots", lambda *_: [])
    monkeypatch.setattr(
        bench, "by_generate", lambda lm, prompts, config: [["red"] * config.n_samples for _ in prompts]
    )
    lm = tiny_model()
    table = getattr(bench, name)(lm, n_questions=2, n_generate=1, rounds=3, **options).set_index(["method", "m"])
    slow, fast = table.loc[("generate", most)], table.loc[("merged", most)]
    assert fast["speedup_over_generate"] == pytest.approx(slow["seconds_per_question"] / fast["seconds_per_question"])
    assert table.loc[("merged", 10), "growth_from_m10"] == 1
    assert fast["over_floor"] == pytest.approx(fast["seconds_per_question"] / fast["floor"]) and fast["floor"] > 0
    assert (table["low"] <= table["seconds_per_question"]).all() and (
        table["high"] >= table["seconds_per_question"]
    ).all()


def test_the_products_are_those_of_the_rows_that_the_sampler_forwards():
    lm, config = tiny_model("llama"), SamplingConfig(60, 1.0, 3, ("#",))
    prompts = [Prompt("Q red A blue ", own) for own in ("Q green A", "Q green yes A", "Q one A")]
    rows, heads, attended = [], [], []

    def note(_, __, options):
        rows.append(options["input_ids"].numel())
        heads.append(len(options["logits_to_keep"]))
        mask = options["attention_mask"]
        mask = mask if isinstance(mask, torch.Tensor) else mask["full_attention"]
        attended.append(int((mask == 0).sum()))

    lm.model.register_forward_pre_hook(note, with_kwargs=True)
    drawn = sample(lm, prompts, config)
    heads[0] = 0  # the forward pass of the shared prefix needs no token to be drawn after it
    layers = sum(part.numel() for name, part in lm.model.named_parameters() if "_proj" in name)
    weights = 2 * layers * sum(rows) + 2 * lm.model.lm_head.weight.numel() * sum(heads)
    assert bench.products(lm, prompts, drawn) == pytest.approx((weights + 4 * 2 * 2 * 8 * sum(attended)) / 1e9)


@pytest.mark.parametrize("method", bench._TRAINERS)
def test_a_training_block_is_timed(method, tmp_path):
    lm = tiny_model()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    seconds, peak, device = bench._block(method, str(tmp_path), "cpu", 4, 2, 0)
    assert 0 < seconds < 10 and peak > 0.1 and device == "cpu"


def test_monitoring_leaves_the_weights_alone_and_tells_the_curve(tmp_path):
    lm = tiny_model()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    table = bench.monitoring(str(tmp_path), "cpu", steps=6, every=3, n_questions=12, n_shots=0)
    assert table["step"].tolist() == [0, 3, 6] and table["identical"].all() and set(table["n"]) == {12}
    assert table[["accuracy", "confidence", "smece", "smece_floor"]].notna().all(axis=None)
    assert (table["share"] > 0).all() and (table["loss"].dropna() > 0).all()
    drawn = plots.monitoring(table).axes[0]
    assert drawn.get_xlabel() == "step" and drawn.get_ylabel() == "dev questions, n = 12"
    with pytest.raises(ValueError, match="no measurements"):
        plots.monitoring(table[:0])


def test_training_bench_compares_medians(monkeypatch):
    times = {"dpo (trl)": [3.0, 4.0, 9.0], "dpo": [2.0, 2.0, 5.0], "catto": [2.2, 1.0, 2.4]}

    class Pool:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def apply(self, function, arguments):
            return times[arguments[0]].pop(0), 1.0, "cpu"

    monkeypatch.setattr(bench.multiprocessing, "get_context", lambda _: type("C", (), {"Pool": lambda *_: Pool()})())
    table = bench.training("m").set_index("method")
    assert table.loc["catto", "time_over_dpo"] == pytest.approx(1.1)
    assert table.loc["dpo (trl)", "seconds_per_step"] == 4.0 and (table["memory_over_dpo"] == 1).all()


def test_family_bench_states_rates_against_the_matmul_limit():
    table = bench.family(rounds=1, steps=5, batch_size=2, seeds=2)
    assert list(table["parameters"]) == sorted(table["parameters"]) and len(table) == 5
    assert (table["gflops"] - 6 * table["parameters"] * table["tokens_per_second"] / 1e9).abs().max() < 1e-9
    assert ((table["share"] > 0) & (table["share"] < 1)).all()
