"""The cache: keys and values of every distinct token once, and forward passes that attend along a tree."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import torch
from transformers import DynamicCache

from calib_utils.errors import SamplingError
from calib_utils.models import LanguageModel


class TreeCache:
    """Keys and values of all prompts that share a prefix, and of what has been drawn after them.

    It holds one column per token: first the shared prefix, then whatever live ends have above them.

    Parameters
    ----------
    lm : model and tokenizer.
    shared : token ids of the shared prefix, forwarded here.
    own : token ids of every prompt after it.
    max_new_tokens : how many may come after a prompt.

    Raises
    ------
    SamplingError : a path longer than the context, or an architecture whose positions cannot be given.
    """

    def __init__(
        self, lm: LanguageModel, shared: tuple[int, ...], own: Iterable[tuple[int, ...]], max_new_tokens: int
    ) -> None:
        """As above."""
        if "position_ids" not in inspect.signature(lm.model.forward).parameters:
            raise SamplingError(
                f"{type(lm.model).__name__} takes no position_ids, which merged-prefix sampling needs; "
                "use a model with rotary or learned positions"
            )
        text_config = lm.model.config.get_text_config()
        self.window = getattr(text_config, "sliding_window", None)
        self.layer_types = set(getattr(text_config, "layer_types", None) or ())
        longest = len(shared) + max(map(len, own)) + max_new_tokens
        context = getattr(text_config, "max_position_embeddings", None)
        if context is not None and longest > context:
            raise SamplingError(
                f"prompt and completion need {longest} tokens, the context of {lm.name!r} holds {context}; "
                "use fewer shots or a smaller max_new_tokens"
            )
        self.lm, self.n_shared = lm, len(shared)
        self.states = DynamicCache()
        self.key_positions = torch.arange(0, device=lm.device)
        if shared:
            causal = torch.ones(len(shared), len(shared), dtype=torch.bool, device=lm.device).tril()
            self.forward(list(shared), torch.arange(len(shared), device=lm.device), causal, [len(shared) - 1])

    @torch.inference_mode()
    def forward(self, ids: list[int], positions: torch.Tensor, seen: torch.Tensor, keep: list[int]) -> torch.Tensor:
        """Logits (len(keep), V) after packed tokens `ids`, which become columns; row i attends where `seen[i]`."""
        device, dtype = self.lm.device, self.lm.model.dtype
        self.key_positions = torch.cat([self.key_positions, positions])
        full = torch.zeros(seen.shape, dtype=dtype, device=device)
        full.masked_fill_(~seen, torch.finfo(dtype).min)
        near = full
        if self.window is not None:
            too_far = positions[:, None] - self.key_positions[None, :] >= self.window
            near = full.masked_fill(too_far, torch.finfo(dtype).min)
        masks = {"full_attention": full[None, None], "sliding_attention": near[None, None]}
        if not self.layer_types <= set(masks):
            raise SamplingError(
                f"{self.lm.name!r} has layers of type {sorted(self.layer_types - set(masks))}; "
                "merged-prefix sampling knows full and sliding attention only"
            )
        mask = masks
        if self.layer_types <= {"full_attention"}:  # a configuration that names no types has one window for all
            mask = masks["full_attention" if self.layer_types else "sliding_attention"]
        output = self.lm.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=positions[None],
            attention_mask=mask,
            past_key_values=self.states,
            use_cache=True,
            logits_to_keep=torch.tensor(keep, device=device),
        )
        return output.logits[0]

    def forget(self, seen: torch.Tensor) -> torch.Tensor:
        """Drop the cached columns that no live end comes after; returns `seen` without them."""
        used = seen.any(dim=0)
        used[: self.n_shared] = True
        self.key_positions = self.key_positions[used]
        for layer in self.states.layers:
            layer.keys, layer.values = layer.keys[:, :, used], layer.values[:, :, used]
        return seen[:, used]
