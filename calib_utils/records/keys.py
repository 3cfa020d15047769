"""Keys: what decides a record or a table, and nothing else. Where they were computed is told beside them."""

from __future__ import annotations

from collections.abc import Mapping

from calib_utils.storage import digest
from calib_utils.types import Prompt

VERSION = 2  # part of every key: change it when the sampler's draws or the columns change
_TOLD = ("python", "model", "max_rows")  # of a condition, without being part of the key


def _decisive(condition: Mapping) -> dict:
    return {name: value for name, value in condition.items() if name not in _TOLD}


def condition_key(condition: Mapping) -> str:
    """16 hexadecimal digits of a condition: fingerprint, dtype, device, style, sampling settings, versions."""
    return digest([VERSION, _decisive(condition)])


def record_key(condition: Mapping, prompt: Prompt, question_id: str) -> str:
    """16 hexadecimal digits of everything that determines the draws of one question."""
    return digest([VERSION, _decisive(condition), prompt.shared, prompt.own, prompt.chat, question_id])


def table_key(condition: Mapping, parts) -> str:
    """16 hexadecimal digits of a table that is no draw; `parts` is what decides it beside the condition."""
    return digest([VERSION, _decisive(condition), parts])
