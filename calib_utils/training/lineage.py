"""Training: a lineage of stages (base -> SFT -> DPO or GRPO), run with trl and peft, each stage cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calib_utils import crossing, models, prompts, storage
from calib_utils.errors import DataError
from calib_utils.models import LanguageModel
from calib_utils.storage import digest
from calib_utils.training.key import stage_key, versions
from calib_utils.training.run import Run
from calib_utils.training.stage import Stage
from calib_utils.training.trained import Trained
from calib_utils.types import Collapse, Origin, Question

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from calib_utils.training.fit import fit
else:  # stages that are finished need no trl
    fit = crossing.Lazy("calib_utils.training.fit:fit")


def train(
    stage: Stage,
    base: LanguageModel,
    questions: Sequence[Question],
    collapse: Collapse,
    folder: str | Path,
    chat: bool = False,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Train `stage` and the stages it comes from, or find them finished in `folder`.

    A stage is trained zero-shot in its own style. It resumes from its last checkpoint after a kill: same
    order of questions, same optimiser state. Finished weights appear under their final name at once or not at all.

    Parameters
    ----------
    base : the model that the lineage starts from; it is loaded anew for training and left alone.
    questions : training questions in a fixed order; each stage sees its window of them.
    collapse : B, which decides what is right: rewards, and which samples are wrong. A finished stage is found by it:
        a function of a module counts by its name (not by its body), a dataclass instance by its fields, a
        `functools.partial` by its function and arguments.
    folder : finished stages, checkpoints, and the draws that preference pairs are made of.
    chat : use the tokenizer's chat template.
    callbacks : handed to the trainer of every stage that is not finished yet.

    Raises
    ------
    DataError : a question outside the train split, or a window with fewer questions than asked for.
    RecordError : where shipped records are read, a stage that is not among them.
    TrainingError : unusable pairs, an empty completion, a diverged run, a reward that never varied, or a collapse
        function that has no name to find its stages by, such as a lambda.
    """
    models.needs_weights(base, "training")
    folder = Path(folder)
    parent = (
        None
        if stage.parent is None
        else train(stage.parent, base, questions, collapse, folder, chat, progress, callbacks)
    )
    own = _window(stage, questions)
    asked = prompts.build_prompts(own, [], stage.style, base.tokenizer if chat else None)
    named = [replace(prompt, shared="", own=prompt.turns) if prompt.chat else prompt for prompt in asked]
    above = {"model": digest(base.origin.parts)}
    finder = stage_key(stage, parent and parent.origin.key, above, {}, named, own, collapse)
    origin = Origin(base.origin.model, stage.method, stage.details, stage.seed, stage.steps, finder)
    below = base.name if parent is None else parent.where(stage.parent_step)[0]
    if crossing.reading():
        return Trained(stage, finder, folder, below, base.dtype, "", origin)
    key = stage_key(stage, parent and parent.key, models.describe(base), versions(), asked, own, collapse)
    done = Trained(stage, key, folder / f"{stage.method}-{key}", below, base.dtype, str(base.device), origin)
    if done.finished:
        return done
    with storage.lock(done.folder), crossing.aside():
        if not done.finished:
            fit(Run(done, base, parent, own, asked, collapse, progress, callbacks))
    return done


def _window(stage: Stage, questions: Sequence[Question]) -> Sequence[Question]:
    own = questions[stage.first : stage.first + stage.n_questions]
    strangers = [question.id for question in own if question.split != "train"]
    if strangers:
        raise DataError(f"training questions must come from the train split; {strangers[0]!r} does not")
    if len(own) < stage.n_questions:
        raise DataError(
            f"{stage.method} asks for {stage.n_questions} questions from number {stage.first} on; there are "
            f"{len(questions)} in all: lower n_questions or first"
        )
    return own
