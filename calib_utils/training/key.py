"""What identifies a stage: everything that decides its weights, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial

from calib_utils import models
from calib_utils.errors import TrainingError
from calib_utils.storage import digest
from calib_utils.training.stage import Stage
from calib_utils.types import Collapse, Prompt, Question

_VERSION = 1  # part of every key: change it when the same stage would train differently
_PACKAGE = __name__.partition(".")[0]


def versions() -> dict[str, str]:
    """Versions of the libraries that decide what training gives."""
    return {name: models.version(name) for name in ("trl", "peft", "transformers", "torch")}


def stage_key(
    stage: Stage,
    parent: str | None,
    base: Mapping[str, str],
    libraries: Mapping[str, str],
    asked: Sequence[Prompt],
    questions: Sequence[Question],
    collapse: Collapse,
) -> str:
    """16 hexadecimal digits of everything that decides a stage's weights.

    Parameters
    ----------
    parent : key of the stage that it starts from; None for the base model.
    base : `models.describe` of the base model.
    libraries : `versions`.
    asked, questions : its window of the training questions, and their prompts.
    """
    lineage = {**stage.as_row(), "parent": parent}
    rows = [question.as_row() for question in questions]
    texts = [{"shared": prompt.shared, "own": prompt.own, "chat": prompt.chat} for prompt in asked]
    return digest([_VERSION, lineage, base, libraries, texts, rows, stable_name(collapse)])


def stable_name(value) -> str:
    """What identifies a collapse function, or a value in one, in every process; TrainingError for anything else.

    The package's own functions and classes go without their module, so that moving one to another module retrains
    nothing. All others have their module and a colon, and cannot be taken for one of the package. What is defined in
    a script or notebook is refused: the next script may give the same name to something else.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value)
    if type(value) in (list, tuple):
        items = ", ".join(map(stable_name, value))
        return f"[{items}]" if type(value) is list else f"({items}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ", ".join(f"{stable_name(k)}: {stable_name(v)}" for k, v in value.items()) + "}"
    if type(value) in (set, frozenset):  # the order of a set of texts differs between processes
        return f"{type(value).__name__}({sorted(map(stable_name, value))})"
    if type(value) is partial:
        parts = [value.func, *value.args]
        given = [f"{name}={stable_name(item)}" for name, item in sorted(value.keywords.items())]
        return f"partial({', '.join([*map(stable_name, parts), *given])})"
    if is_dataclass(value) and not isinstance(value, type):
        shown = ", ".join(f"{field.name}={stable_name(getattr(value, field.name))}" for field in fields(value))
        return f"{stable_name(type(value))}({shown})"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module in (None, "__main__") or _found(module, name) is not value:
        raise TrainingError(
            f"a stage trained with {repr(value)[:80]} could not be found again: no other process knows it by a name. "
            "Define the collapse function at the top level of a module and import it, take one of `semantics`, or "
            "use a dataclass whose fields hold plain values"
        )
    return name if module.partition(".")[0] == _PACKAGE else f"{module}:{name}"


def _found(module: str, name: str | None):
    """What another process would import under this name; None for lambdas, local functions and bound methods."""
    found = sys.modules.get(module)
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    return found
