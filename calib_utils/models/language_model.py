"""A language model with what a record needs to know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from calib_utils import crossing
from calib_utils.errors import ModelError
from calib_utils.models.device import dtype_name
from calib_utils.storage import digest
from calib_utils.types import Origin

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LanguageModel:
    """A model with what a record needs to know about it. Weights and tokenizer are read when first asked for:
    records that are there already need neither.

    Attributes
    ----------
    name : the name it was asked for by.
    fingerprint : 16 hex digits that change when weights, configuration, tokenizer or adapter change.
    dtype : name of the parameters' dtype, such as ``"bfloat16"``.
    device : what holds the parameters.
    read_model, read_tokenizer : read what `model` and `tokenizer` hold; ModelError if that is damaged.
    backend : what computes: ``"transformers"``, or another one's name and version.
    origin : where it comes from, which finds shipped records of it; by default its name alone.
    """

    name: str
    fingerprint: str
    dtype: str
    device: torch.device
    read_model: Callable[[], torch.nn.Module]
    read_tokenizer: Callable[[], PreTrainedTokenizerBase]
    backend: str = "transformers"
    origin: Origin = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.origin is None:
            object.__setattr__(self, "origin", Origin(self.name))

    @classmethod
    def of(cls, model: torch.nn.Module, tokenizer, name: str, fingerprint: str) -> LanguageModel:
        """A model that is in memory already."""
        return cls(name, fingerprint, dtype_name(model.dtype), model.device, lambda: model, lambda: tokenizer)

    @cached_property
    def model(self) -> torch.nn.Module:
        """transformers.PreTrainedModel in evaluation mode, without gradients."""
        if crossing.reading():
            return self.read_model()
        import torch

        with torch.inference_mode(False):  # whoever asks first: the weights can be trained later
            return self.read_model()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.read_tokenizer()

    @property
    def n_parameters(self) -> int:
        """How many parameters it has; known of shipped records, too."""
        return int(self._told("parameters", lambda: self.model.num_parameters()))

    @property
    def eos_token(self) -> str | None:
        """The text of the token that ends an answer, if its tokenizer has one; known of shipped records, too."""
        return self._told("eos_token", lambda: self.tokenizer.eos_token)

    @property
    def chat_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Its tokenizer where that has a chat template, else None; known of shipped records, too."""
        known = self._told("chat", lambda: bool(getattr(self.tokenizer, "chat_template", None)))
        return self.tokenizer if known else None

    def _told(self, name: str, ask: Callable[[], object]):
        """What numbers ask about the model beside its draws: noted, whoever else has read it before."""
        if crossing.reading():
            return facts(name, self.origin)[name]
        found = ask()
        crossing.note(name, digest(self.origin.parts), pd.DataFrame([{name: found}]))
        return found

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end a completion, from the generation configuration and the tokenizer."""
        return end_ids(self.model.generation_config, self.tokenizer)


def facts(name: str, origin: Origin) -> dict:
    """What the run has told about a model, by column: "model" (`describe`), or one of what numbers ask."""
    (told,) = crossing.found(name, digest(origin.parts), origin).to_dict("records")
    return {column: None if value != value else value for column, value in told.items()}


def end_ids(generation, tokens) -> frozenset[int]:
    """Token ids that end a completion, by a generation configuration (or None) and the tokenizer."""
    ids = generation.eos_token_id if generation else None
    ids = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
    if tokens.eos_token_id is not None:
        ids.append(tokens.eos_token_id)
    return frozenset(ids)


def encode(tokenizer, text: str, chat: bool = False) -> list[int]:
    """Token ids of a prompt, with the beginning-of-sequence token exactly once.

    A plain prompt starts with BOS wherever the tokenizer has one of its own: Gemma answers badly without it,
    and some converted tokenizers forget it. Tokenizers whose BOS is also their EOS (GPT-2, Pythia) were
    trained without it and get none. A chat template writes its own special tokens (`chat=True`).
    """
    if not text:
        raise ValueError("the prompt is empty; give at least one character")
    ids = tokenizer(text, add_special_tokens=not chat).input_ids
    bos = tokenizer.bos_token_id
    if not chat and bos is not None and bos != tokenizer.eos_token_id and ids[:1] != [bos]:
        ids = [bos, *ids]
    return ids


def needs_weights(lm: LanguageModel, what: str) -> None:
    """Raise ModelError for a model whose weights another backend holds, saying `what` needs them."""
    if lm.backend != "transformers":
        raise ModelError(f"{lm.name!r} runs in {lm.backend}; {what} needs backend='transformers'")
