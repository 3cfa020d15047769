"""Tiny models that tests enumerate, and the real one where a test is about it."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from calib_utils.models import LanguageModel

WORDS = ["<pad>", "<eos>", "<bos>", "Q", "A", ":", "red", "blue", "green", "one", "two", "#", "yes", "no"]


def tiny_tokenizer():
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="no"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        clean_up_tokenization_spaces=False,
    )


def tiny_model(kind: str = "llama", seed: int = 0, scale: float = 1.0) -> LanguageModel:
    """A random fp32 model over 14 words; `scale` sharpens its distribution."""
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    if kind == "gemma":  # sliding and full attention in turn, with a window shorter than the prompts
        layers = ["sliding_attention", "full_attention"]
        model = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, sliding_window=4, layer_types=layers))
    elif kind == "mistral":  # one window for all layers
        model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=4))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        model.get_output_embeddings().weight.mul_(scale)
    model.requires_grad_(False)
    return LanguageModel.of(model.float().eval(), tiny_tokenizer(), f"tiny-{kind}", f"tiny-{kind}-{seed}-{scale}")


@pytest.fixture(params=["llama", "gemma", "mistral"])
def tiny(request) -> LanguageModel:
    return tiny_model(request.param, scale=3.0)


@pytest.fixture(scope="session")
def default_model() -> LanguageModel:
    """The real default model, in bfloat16 or what the machine does best."""
    from calib_utils.models import load

    return load()
