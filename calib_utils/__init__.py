"""Calibration of language models: sample, collapse by meaning, compare confidence with accuracy.

The names below are what a study needs; whatever else there is lies one folder deeper (`metrics`, `semantics`, ...).
Each is loaded when it is asked for, so that scores and figures need no torch.

======================================  ===========================================================================
`load_questions`, `known_names`         questions of a data set, and every name by which its answers are known
`Question`, `SamplingConfig`            a question with its reference answer; how to draw completions
`build_prompts`, `pick_shots`           one prompt per question, and the worked examples in front of it
`load_model`                            a model by its name, folder or hub id
`collect`                               M answers per question, drawn or read from the records
`Semantic`, `score`                     what counts as the same answer; confidence and correctness per question
`evaluate`                              a calibration error or score with its 95 % interval
`explore`                               recorded answers under sliders and menus, or as one figure
`Stage`, `train`                        a step of training, as data; its lineage trained or found
`CATTOTrainer`, `CATTOConfig`           DPO with a calibration term, in place of trl's
`CFTTrainer`, `CFTConfig`               calibration-aware fine-tuning on multiple choice
`CalibError`                            the base class of all errors about what the package was given
======================================  ===========================================================================
"""

import importlib
import os

# trl reports its use over the network unless told not to; nothing here sends anything by itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_DOOR = {  # name: module, or module:name there
    "CATTOConfig": "training",
    "CATTOTrainer": "training",
    "CFTConfig": "training",
    "CFTTrainer": "training",
    "CalibError": "errors",
    "Question": "types",
    "SamplingConfig": "types",
    "Semantic": "semantics",
    "Stage": "training",
    "build_prompts": "prompts",
    "collect": "records",
    "evaluate": "metrics",
    "explore": "studies.explore",
    "known_names": "data",
    "load_model": "models:load",
    "load_questions": "data",
    "pick_shots": "prompts",
    "score": "semantics",
    "train": "training",
}


def __getattr__(name: str):
    """What stands in the table above, loaded when it is asked for (PEP 562)."""
    if name not in _DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _DOOR[name].partition(":")
    return getattr(importlib.import_module(f"calib_utils.{module}"), there or name)


def __dir__() -> list[str]:
    """The door's names, and the folders that have been opened."""
    return sorted({*globals(), *_DOOR})
