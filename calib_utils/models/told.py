"""Told: what stands for a model where shipped records are read: its name, and what the run has told about it."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

from calib_utils.errors import RecordError
from calib_utils.models.language_model import LanguageModel, facts
from calib_utils.types import Origin


class Absent:
    """In place of weights or a tokenizer: whatever is asked of it needs the model itself."""

    def __init__(self, what: str, origin: Origin) -> None:
        """Nothing is looked up."""
        self._what, self._origin = what, origin

    def __getattr__(self, name: str):
        raise RecordError(
            f"{name!r} is asked of the {self._what} of {self._origin}, and records hold no {self._what}: run the "
            "notebook where the model is (python -m calib_utils run)"
        )


class Tokenizer(Absent):
    """In place of a tokenizer: turns of a chat as plain text."""

    chat_template = "not shipped"  # nobody asks for it where there is none

    def apply_chat_template(self, turns: list[dict], **_) -> str:
        """The turns as JSON: they find the shipped records, whatever the template makes of them."""
        return json.dumps(turns, ensure_ascii=False)


def told(name: str, origin: Origin) -> LanguageModel:
    """A model to read shipped records of."""
    about = {"fingerprint": "", "dtype": "", "device": ""} if origin.stage else facts("model", origin)
    device = SimpleNamespace(type=about["device"])
    weights, tokenizer = partial(Absent, "weights", origin), partial(Tokenizer, "tokenizer", origin)
    return LanguageModel(name, about["fingerprint"], about["dtype"], device, weights, tokenizer, origin=origin)
