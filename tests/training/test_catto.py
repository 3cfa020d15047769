import math
import re

import pytest
import torch
from conftest import WORDS, tiny_model, tiny_tokenizer
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils as trl_utils

from calib_utils import CATTOConfig, CATTOTrainer
from calib_utils.home import ROOT
from calib_utils.training import compat, losses

PAIRS = Dataset.from_list(
    [
        {"prompt": f"Q {a} {b} A", "chosen": f" {a}", "rejected": f" {b} # {a}"}
        for a in ("red", "blue", "green")
        for b in ("one", "two", "yes", "no")
    ]
)
CHAT = Dataset.from_list(
    [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in PAIRS
    ]
)
SHAPE = dict(
    vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8, max_position_embeddings=64, bos_token_id=2, eos_token_id=1, pad_token_id=0,
)  # fmt: skip


def settings(tmp_path, **options):
    common = dict(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=3, learning_rate=1e-2, logging_steps=1,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        max_length=None, seed=0,
    )  # fmt: skip
    return {**common, **options}


def policy(lora, seed=0, model=None):
    model = model or tiny_model(seed=seed).model
    model.requires_grad_(True).train()
    if not lora:
        return model
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights="gaussian"))


def trainer(kind, config, tmp_path, lora=True, data=PAIRS, model=None, tokenizer=None, **options):
    reference = None if lora else tiny_model().model.requires_grad_(False)
    return kind(
        policy(lora, model=model),
        reference,
        args=config(**settings(tmp_path, **options)),
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        processing_class=tokenizer or tiny_tokenizer(),
    )


def history(trained):
    trained.train()
    return [row for row in trained.state.log_history if "loss" in row]


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("precomputed", [True, False])
def test_weight_0_is_dpo_bit_for_bit(lora, checkpointing, precomputed, tmp_path):
    same = dict(gradient_checkpointing=checkpointing, precompute_ref_log_probs=precomputed)
    plain = history(trainer(DPOTrainer, DPOConfig, tmp_path, lora, **same))
    ours = history(trainer(CATTOTrainer, CATTOConfig, tmp_path, lora, calibration_weight=0.0, **same))
    for name in ("loss", "grad_norm", "rewards/margins", "logps/chosen", "entropy"):
        assert [row[name] for row in ours] == [row[name] for row in plain]
    with_term = history(trainer(CATTOTrainer, CATTOConfig, tmp_path, lora, calibration_weight=1.0, **same))
    assert with_term[-1]["logps/chosen"] != plain[-1]["logps/chosen"]
    assert with_term[0]["loss"] == pytest.approx(
        plain[0]["loss"] + with_term[0]["calibration/chosen"] + with_term[0]["calibration/rejected"], abs=1e-4
    )


def by_full_logits(tuner, batch):
    """The loss of the equations, from the model's own logits of every position."""
    model, config = tuner.model, tuner.args
    mask, ids = batch["completion_mask"][:, 1:], batch["input_ids"][:, 1:]
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    with torch.no_grad():
        if tuner.ref_model is None:
            with model.disable_adapter():
                before = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        else:
            before = tuner.ref_model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]

    def logp(values):
        return (values.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1) * mask).sum(-1)

    chosen, rejected = (logp(logits) - logp(before)).chunk(2)
    loss = -torch.nn.functional.logsigmoid(config.beta * (chosen - rejected)).mean()
    c, m = losses.token_confidence(logits, ids)
    for part, side in zip(range(2), (False, True), strict=True):
        pick = [tensor.chunk(2)[part] for tensor in (c, m, mask)]
        loss = loss + config.calibration_weight * losses.catto(*pick, side, *config.calibration).mean()
    return loss


def gradients(tuner, loss):
    wanted = [p for p in tuner.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)]


def compare(tuner):
    batch = next(iter(tuner.get_train_dataloader()))
    ours, plain = tuner.compute_loss(tuner.model, batch), by_full_logits(tuner, batch)
    assert ours.item() == pytest.approx(plain.item(), abs=1e-5)
    pairs = list(zip(gradients(tuner, ours), gradients(tuner, plain), strict=True))
    assert any(g.abs().max() > 1e-4 for _, g in pairs)
    for mine, full in pairs:
        assert torch.allclose(mine, full, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"surrogate_temperature": 0.1, "surrogate_gradient": False, "calibration_form": "bce"},
        {"rejected_side": "1-z", "calibration_form": "l2", "calibration_weight": 3.0},
        {"rejected_side": "off"},
    ],
    ids=str,
)
def test_gradients_are_those_of_a_separate_full_forward(lora, choices, tmp_path):
    compare(trainer(CATTOTrainer, CATTOConfig, tmp_path, lora, **choices))


def test_tiles_of_tokens_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr("calib_utils.training.lm_head._TILE", 3 * len(WORDS))
    compare(trainer(CATTOTrainer, CATTOConfig, tmp_path, lora=False))


@pytest.mark.parametrize("kind", ["soft cap", "scale"])
def test_bent_and_scaled_logits_are_what_the_model_itself_computes(kind, tmp_path):
    torch.manual_seed(0)
    if kind == "soft cap":
        model = Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=2.0, attn_implementation="eager"))
    else:
        small = {name: value for name, value in SHAPE.items() if name != "head_dim"}
        model = CohereForCausalLM(CohereConfig(**small, logit_scale=0.3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    compare(trainer(CATTOTrainer, CATTOConfig, tmp_path, model=model))


def test_evaluation_logs_the_terms(tmp_path):
    found = trainer(CATTOTrainer, CATTOConfig, tmp_path).evaluate()
    for name in ("calibration/chosen", "calibration/rejected", "confidence/chosen", "confidence/rejected"):
        assert 0 < found[f"eval_{name}"] < 1
    assert math.isfinite(found["eval_loss"])


def test_conversational_data(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}Q {{ m['content'] }} {% else %}{{ m['content'] }} <eos>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{% endif %}"
    )
    logs = history(trainer(CATTOTrainer, CATTOConfig, tmp_path, data=CHAT, tokenizer=tokenizer))
    assert len(logs) == 4 and all(row["calibration/chosen"] > 0 for row in logs)


@pytest.mark.parametrize("compact", [True, False])
def test_the_light_head_trains_dpo_as_trl_does(compact, tmp_path):
    plain = history(trainer(DPOTrainer, DPOConfig, tmp_path, lora=False))
    with compat.scored_head(compact=compact):
        light = history(trainer(DPOTrainer, DPOConfig, tmp_path, lora=False))
    for name in ("loss", "grad_norm", "logps/chosen", "logps/rejected", "entropy", "mean_token_accuracy"):
        assert [row[name] for row in light] == pytest.approx([row[name] for row in plain], rel=1e-3, abs=1e-5)


def test_the_patch_does_not_outlive_the_step(tmp_path):
    original = trl_utils._ChunkedLogProbFunction
    tuner = trainer(CATTOTrainer, CATTOConfig, tmp_path)
    history(tuner)
    assert trl_utils._ChunkedLogProbFunction is original


def test_a_frozen_model_is_an_error(tmp_path):
    frozen, args = tiny_model().model.requires_grad_(False), CATTOConfig(**settings(tmp_path))
    with pytest.raises(ValueError, match=r"peft_config.*requires_grad_\(True\)"):
        CATTOTrainer(frozen, tiny_model().model, args, train_dataset=PAIRS, processing_class=tiny_tokenizer())


@pytest.mark.parametrize(
    "wrong",
    [{"calibration_weight": -1.0}, {"rejected_side": "x"}, {"calibration_form": "x"}, {"surrogate_temperature": 0.0}],
    ids=str,
)
def test_unknown_choices_are_errors(wrong, tmp_path):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        CATTOConfig(**settings(tmp_path, **wrong))
    with pytest.raises(TypeError, match="takes a CATTOConfig, got DPOConfig"):
        trainer(CATTOTrainer, DPOConfig, tmp_path)


@pytest.mark.real_model
def test_the_example_of_the_page_on_training_runs_as_written(tmp_path, monkeypatch):
    text = (ROOT / "site" / "training.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "CATTOTrainer(" in block)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert (tmp_path / "runs" / "catto" / "adapter_model.safetensors").exists()
