"""Told: what stands for a model where shipped records are read: its name, and what the run has told about it."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

from calib_utils import crossing
from calib_utils.errors import RecordError
from calib_utils.models.language_model import LanguageModel
from calib_utils.storage import digest
from calib_utils.types import Origin


class Weights:
    """In place of weights: how many parameters there are. Anything else needs the model itself."""

    def __init__(self, origin: Origin) -> None:
        """Nothing is looked up yet."""
        self._origin = origin

    def num_parameters(self) -> int:
        """As `transformers.PreTrainedModel.num_parameters`."""
        return int(facts("parameters", self._origin)["parameters"])

    def __getattr__(self, name: str):
        raise _absent("weights", self._origin, name)


class Tokenizer:
    """In place of a tokenizer: how an answer ends, and turns of a chat as plain text."""

    def __init__(self, origin: Origin) -> None:
        """Looks the end of an answer up."""
        self._origin, about = origin, facts("tokenizer", origin)
        self.eos_token: str | None = about["eos_token"]
        self.chat_template = "not shipped" if about["chat"] else None

    def apply_chat_template(self, turns: list[dict], **_) -> str:
        """The turns as JSON: they find the shipped records, whatever the template makes of them."""
        return json.dumps(turns, ensure_ascii=False)

    def __getattr__(self, name: str):
        raise _absent("tokenizer", self._origin, name)


def told(name: str, origin: Origin) -> LanguageModel:
    """A model to read shipped records of."""
    about = {"fingerprint": "", "dtype": "", "device": ""} if origin.stage else facts("model", origin)
    device = SimpleNamespace(type=about["device"])
    weights, tokenizer = partial(Weights, origin), partial(Tokenizer, origin)
    return LanguageModel(name, about["fingerprint"], about["dtype"], device, weights, tokenizer, origin=origin)


def facts(kind: str, origin: Origin) -> dict:
    """What the run has told about a model: kind "model" (`describe`), "tokenizer" or "parameters"."""
    (told,) = crossing.found(kind, digest(origin.parts), origin).to_dict("records")
    return {name: None if value != value else value for name, value in told.items()}


def _absent(what: str, origin: Origin, name: str) -> RecordError:
    return RecordError(
        f"{name!r} is asked of the {what} of {origin}, and records hold no {what}: run the notebook where the "
        "model is (python -m calib_utils run)"
    )
