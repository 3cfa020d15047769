"""Stack: several models of one shape, computed and trained side by side.

A matrix product of S small models costs little more than that of one, so that ten training seeds take far less than
ten times as long. Weights carry the names of `transformers.LlamaForCausalLM`, into which any one of the stack loads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from calib_utils import storage
from calib_utils.models import without_bars

_HEAD, _CONTEXT = 16, 64
_SPREAD = 0.08  # of the random start; at this width the usual 0.02 needs several times the steps
Cache = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of every layer, (S, B, heads, T, d)


@dataclass(frozen=True)
class Stack:
    """S models of one shape.

    Attributes
    ----------
    config : the `transformers.LlamaConfig` they share.
    weights : name in a state dictionary of `transformers.LlamaForCausalLM` -> (S, ...).
    """

    config: object
    weights: dict[str, torch.Tensor]

    @classmethod
    def untrained(cls, tokenizer, seeds: Sequence[int], width: int = 64, layers: int = 1) -> Stack:
        """Random starts, one per seed; ValueError for no seed, or a width that is no multiple of 16."""
        from transformers import LlamaConfig, LlamaForCausalLM

        if not len(seeds):
            raise ValueError("seeds is empty; give at least one")
        if width < _HEAD or width % _HEAD or layers < 1:
            raise ValueError(f"width {width} must be a multiple of {_HEAD}, layers {layers} at least 1")
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // _HEAD,
            max_position_embeddings=_CONTEXT,
            tie_word_embeddings=True,
            initializer_range=_SPREAD,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        started = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                started.append(LlamaForCausalLM(config))
        return cls.of(started)

    @classmethod
    def of(cls, llamas: Sequence[torch.nn.Module]) -> Stack:
        """Models of the class `transformers.LlamaForCausalLM` that share a configuration."""
        states = [dict(llama.named_parameters()) for llama in llamas]
        weights = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
        return cls(llamas[0].config, weights)

    def __len__(self) -> int:
        return len(self.weights["model.norm.weight"])

    def model(self, at: int) -> torch.nn.Module:
        """The model number `at` as `transformers.LlamaForCausalLM`, in evaluation mode, without gradients."""
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM(self.config)
        model.load_state_dict({name: weight[at] for name, weight in self.weights.items()}, strict=False)
        model.tie_weights()
        return model.requires_grad_(False).eval()

    def save(self, at: int, tokenizer, folder: str | Path) -> Path:
        """The model number `at` and its tokenizer in `folder`, at once or not at all, for `models.load`."""
        target = Path(folder)
        with storage.lock(target):
            if not target.is_dir():
                with tempfile.TemporaryDirectory(dir=target.parent) as work, without_bars():
                    ready = Path(work) / target.name
                    self.model(at).save_pretrained(ready)
                    tokenizer.save_pretrained(ready)
                    storage.share(ready)
                    os.replace(ready, target)
        return target

    def copy(self, trained: bool = False) -> Stack:
        """The same weights as new leaves, with gradients if they are to be `trained`."""
        fresh = {name: weight.detach().clone().requires_grad_(trained) for name, weight in self.weights.items()}
        return Stack(self.config, fresh)

    def parameters(self) -> list[torch.Tensor]:
        """All weights, for an optimiser; one that works element by element treats each model for itself."""
        return list(self.weights.values())

    def with_updates(self, updates: dict[str, torch.Tensor]) -> Stack:
        """The stack with these added to its weights."""
        return Stack(self.config, {**self.weights, **{name: self.weights[name] + u for name, u in updates.items()}})

    def logits(self, ids: torch.Tensor, last: int | None = None) -> torch.Tensor:
        """Logits (S, B, last, V) at the `last` positions (all of them by default) of token ids (S, B, T)."""
        return self.extend(ids, None, last)[0]

    def extend(self, ids: torch.Tensor, cache: Cache | None, last: int | None = None) -> tuple[torch.Tensor, Cache]:
        """Logits as `logits` gives them for tokens that come after those in `cache`, and the longer cache."""
        config, weights = self.config, self.weights
        s, b, t = ids.shape
        width, heads = config.hidden_size, config.num_attention_heads
        before = cache[0][0].shape[3] if cache else 0
        kept = t if last is None else last
        vectors = weights["model.embed_tokens.weight"]
        offsets = torch.arange(s).view(s, 1, 1) * vectors.shape[1]
        hidden = F.embedding(ids + offsets, vectors.flatten(0, 1))
        cos, sin = _rotation(before + t, width // heads, config.rope_parameters["rope_theta"])
        longer: Cache = []
        for layer in range(config.num_hidden_layers):
            name = f"model.layers.{layer}."
            rows = (
                kept if layer == config.num_hidden_layers - 1 else t
            )  # only what is asked for leaves the last layer
            normed = self._norm(hidden, name + "input_layernorm.weight")
            keys, values = (
                self._linear(normed, f"{name}self_attn.{which}_proj.weight").view(s, b, t, heads, -1).transpose(2, 3)
                for which in ("k", "v")
            )
            queries = self._linear(normed[:, :, t - rows :], f"{name}self_attn.q_proj.weight")
            queries = queries.view(s, b, rows, heads, -1).transpose(2, 3)
            keys = _rotated(keys, cos[before:], sin[before:])
            queries = _rotated(queries, cos[before + t - rows :], sin[before + t - rows :])
            if cache:
                keys = torch.cat([cache[layer][0], keys], dim=3)
                values = torch.cat([cache[layer][1], values], dim=3)
            longer.append((keys, values))
            scores = queries @ keys.transpose(3, 4) * (width // heads) ** -0.5
            if rows > 1:
                ahead = torch.ones(rows, before + t, dtype=torch.bool).triu(before + t - rows + 1)
                scores = scores.masked_fill(ahead, -torch.inf)
            mixed = (scores.softmax(dim=-1) @ values).transpose(2, 3).reshape(s, b, rows, width)
            hidden = hidden[:, :, t - rows :] + self._linear(mixed, f"{name}self_attn.o_proj.weight")
            normed = self._norm(hidden, name + "post_attention_layernorm.weight")
            gate, up = (self._linear(normed, f"{name}mlp.{which}_proj.weight") for which in ("gate", "up"))
            hidden = hidden + self._linear(F.silu(gate) * up, name + "mlp.down_proj.weight")
        hidden = self._norm(hidden[:, :, -kept:], "model.norm.weight")
        return self._linear(hidden, "model.embed_tokens.weight"), longer

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self.weights[name]
        return torch.bmm(x.flatten(1, 2), weight.transpose(1, 2)).view(*x.shape[:3], -1)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        normed = F.rms_norm(x, x.shape[-1:], eps=self.config.rms_norm_eps)
        return normed * self.weights[name][:, None, None]


def _rotation(length: int, size: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.arange(length)[:, None] * frequencies.repeat(2)
    return angles.cos(), angles.sin()


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
