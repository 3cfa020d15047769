"""Tokens of prompts and completions: where a shared beginning ends, and where a drawn text stops."""

from __future__ import annotations

from collections.abc import Sequence

from calib_utils.models import encode
from calib_utils.types import Prompt


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning of two sequences."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def cut(tokenizer, token_ids: Sequence[int], stop: Sequence[str]) -> tuple[str, bool]:
    """Text of drawn tokens up to the first stop string, and whether there is one."""
    text = tokenizer.decode(token_ids, skip_special_tokens=True)
    found = [at for at in (text.find(one) for one in stop) if at >= 0]
    return text[: min(found, default=None)], bool(found)


def split(tokenizer, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt as (shared, own): the whole text is tokenized, and cut where it leaves `shared`."""
    whole = encode(tokenizer, prompt.shared + prompt.own, prompt.chat)
    shared = encode(tokenizer, prompt.shared, prompt.chat) if prompt.shared else []
    at = common_length(shared, whole[:-1])
    return tuple(whole[:at]), tuple(whole[at:])
