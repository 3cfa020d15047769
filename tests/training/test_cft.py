import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl import SFTConfig, SFTTrainer

from calib_utils import CFTConfig, CFTTrainer, sampling, semantics
from calib_utils.metrics import equal_width_bins
from calib_utils.training import losses
from calib_utils.training.cft import check_choices
from calib_utils.types import Prompt

CHOICES = [[" red", " blue one", " green"], [" yes", " no"], [" red", " blue", " green # one", " two"]]
ROWS = [
    {"id": f"q/{i}", "prompt": f"Q {a} {b} A", "choices": CHOICES[i % 3], "label": i % 2}
    for i, (a, b) in enumerate((a, b) for a in ("one", "two", "#", ":") for b in ("red", "blue", "yes"))
]


def build(tmp_path, lora=True, rows=ROWS, kind=CFTTrainer, config=CFTConfig, scale=1.0, **options):
    torch.manual_seed(0)
    model = tiny_model(scale=scale).model.requires_grad_(True).train()
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights="gaussian"))
    common = dict(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        max_length=None, seed=0,
    )  # fmt: skip
    data = Dataset.from_list(rows)
    args = config(**{**common, **options})
    return kind(model, args=args, train_dataset=data, processing_class=tiny_tokenizer())


def history(trained):
    trained.train()
    return [row for row in trained.state.log_history if "loss" in row]


@pytest.mark.parametrize("answer_only", [True, False])
def test_weight_0_is_cross_entropy_on_the_right_option(answer_only, tmp_path):
    plain_rows = [{"prompt": row["prompt"], "completion": row["choices"][row["label"]]} for row in ROWS]
    same = dict(completion_only_loss=answer_only)
    plain = history(build(tmp_path, rows=plain_rows, kind=SFTTrainer, config=SFTConfig, **same))
    ours = history(build(tmp_path, **same))
    for name in ("loss", "grad_norm", "mean_token_accuracy"):
        assert [row[name] for row in ours] == [row[name] for row in plain]


def test_option_probabilities_are_those_of_the_sampler(tmp_path):
    tuner = build(tmp_path, lora=False, scale=2.0)
    begun = [{**row, "prompt": "<bos>" + row["prompt"]} for row in ROWS]  # as the sampler begins a prompt
    with torch.no_grad():
        p, mask = tuner.option_probabilities(tuner.model, begun)
    lm = tiny_model(scale=2.0)
    asked = [Prompt("", row["prompt"]) for row in ROWS]
    rated = sampling.option_logprobs(lm, asked, [row["choices"] for row in ROWS], ending="<eos>")
    np.testing.assert_allclose(p.numpy(), semantics.option_probabilities(rated), atol=1e-5)
    assert mask.sum(dim=1).tolist() == [len(row["choices"]) for row in ROWS]


def by_full_logits(model, rows):
    """Log-probability of every option, from the model's own logits of every position."""
    tokenizer, scores = tiny_tokenizer(), torch.full((len(rows), 4), -torch.inf)
    for i, row in enumerate(rows):
        start = len(tokenizer(row["prompt"]).input_ids)
        for j, choice in enumerate(row["choices"]):
            ids = torch.tensor([[*tokenizer(row["prompt"] + choice).input_ids, tokenizer.eos_token_id]])
            logp = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
            scores[i, j] = logp[start - 1 :].sum()
    return scores


@pytest.mark.parametrize("lora", [True, False])
def test_loss_and_gradients_match_the_equations(lora, tmp_path):
    tuner = build(tmp_path, lora, calibration_weight=2.0)
    tuner.current_gradient_accumulation_steps = 1
    tuner._estimate()
    batch = next(iter(tuner.get_train_dataloader()))
    rows = [ROWS[i] for i in batch["row"]]
    numbers = batch["row"]
    loss = tuner.compute_loss(tuner.model, dict(batch))
    loss.backward()
    found = {n: p.grad.clone() for n, p in tuner.model.named_parameters() if p.grad is not None}
    tuner.model.zero_grad()
    with torch.no_grad():
        every = by_full_logits(tuner.model, ROWS).softmax(dim=1)
    top = every.max(dim=1)
    right = top.indices == torch.tensor([row["label"] for row in ROWS])
    bins = torch.tensor(equal_width_bins(top.values.numpy(), 10))
    share = torch.stack([right[bins == k].float().mean() for k in bins])
    scores = by_full_logits(tuner.model, rows)
    mask = torch.isfinite(scores)
    term = losses.rcft(scores.softmax(dim=1), share[numbers], bins[numbers], mask)
    tokens = sum(len(tiny_tokenizer()(row["choices"][row["label"]]).input_ids) + 1 for row in rows)
    reference = -sum(scores[i, row["label"]] for i, row in enumerate(rows)) / tokens
    expected = reference + 2.0 * term
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in tuner.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("every, expected", [(0, [0, 3]), (2, [0, 2, 4])])
def test_the_e_step_comes_every_epoch_or_n_steps(every, expected, tmp_path, monkeypatch):
    tuner, seen = build(tmp_path, calibration_weight=1.0, estimate_steps=every, max_steps=5), []
    original = tuner._estimate
    monkeypatch.setattr(tuner, "_estimate", lambda: (seen.append(tuner.state.global_step), original()))
    rows = history(tuner)
    assert seen == expected
    assert [row["step"] - 1 for row in rows if "calibration/ece" in row] == expected
    assert all("calibration/loss" in row for row in rows)


def test_it_resumes_between_two_e_steps(tmp_path):
    options = dict(calibration_weight=1.0, estimate_steps=3, max_steps=5, save_strategy="steps", save_steps=2)
    whole = build(tmp_path / "a", **options)
    whole.train()
    again = build(tmp_path / "a", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for (name, one), two in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_rcft_holds_confidence_to_accuracy(tmp_path):
    tuner = build(tmp_path, calibration_weight=20.0, estimate_steps=5, max_steps=40, scale=4.0)
    found = [row["calibration/ece"] for row in history(tuner) if "calibration/ece" in row]
    assert len(found) == 8 and found[0] > 0.3 and found[-1] < found[0] / 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"choices": [" red"]}, "'q/1'.* has 1 options"),
        ({"choices": [f" {i}" for i in range(11)]}, "has 11 options"),
        ({"choices": [" red", " Red "]}, "empty or the same"),
        ({"choices": [" red", " "]}, "empty or the same"),
        ({"label": 2}, "label 2"),
        ({"label": -1}, "label -1"),
        ({"label": "red"}, "label 'red'"),
    ],
)
def test_unusable_rows_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_choices([ROWS[0], {**ROWS[1], **change}])


def test_missing_rows_and_fields_are_named():
    with pytest.raises(ValueError, match=r"^there are no rows to train on; give rows of prompt, choices and label$"):
        check_choices([])
    with pytest.raises(ValueError, match=r"^row 1 has no 'choices'; it has the fields \['label', 'prompt'\]$"):
        check_choices([ROWS[0], {"prompt": "Q", "label": 0}])


@pytest.mark.parametrize(
    "option, message",
    [({"calibration_weight": -1.0}, "calibration_weight is -1"), ({"n_bins": 0}, "n_bins = 0")],
)
def test_unusable_settings_are_named(option, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CFTConfig(str(tmp_path), use_cpu=True, bf16=False, **option)
    with pytest.raises(TypeError, match="takes a CFTConfig, got SFTConfig"):
        CFTTrainer(tiny_model().model, SFTConfig(str(tmp_path), use_cpu=True, bf16=False))
    with pytest.raises(ValueError, match="takes rows of prompt, choices and label"):
        CFTTrainer(tiny_model().model, CFTConfig(str(tmp_path), use_cpu=True, bf16=False))
