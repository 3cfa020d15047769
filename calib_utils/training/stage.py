"""Stages: what is trained, as data. A lineage (base -> SFT -> DPO or GRPO) is a stage with its parents."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from calib_utils import prompts
from calib_utils.training.methods import METHODS, DPOOptions, Options

REJECTED = ("samples", "distractors", "minority")
SCHEDULES = ("constant", "linear")


@dataclass(frozen=True)
class Stage:
    """One step of a lineage, as data. The parent is what it starts from; None is the base model.

    Attributes
    ----------
    method : ``"pretrain"``, causal language modelling on `pretraining.documents` of the questions, all weights from a
        random start (`pretraining.untrained`), in rows of packed tokens; ``"sft"``, cross-entropy on reference
        answers; ``"dpo"``, direct preference optimisation of the reference over a wrong answer (Rafailov et al.,
        2023); ``"catto"``, DPO with the calibration term of `CATTOConfig`; ``"grpo"``, group-relative policy
        optimisation (Shao et al., 2024; trl's default normalisation) with reward [B(answer) = B(reference)];
        ``"cft"``, cross-entropy on the right one of a question's options, with RCFT's term where `options` say so
        (`CFTConfig`).
    steps : optimisation steps: the strength.
    learning_rate : of AdamW, at the start.
    parent : the stage before this one.
    parent_step : which of its kept steps this one starts from; None is its last.
    first, n_questions : the window of the training questions that it sees: the data size.
    batch_size : questions in a step; of ``"pretrain"`` rows.
    beta : weight of the KL penalty towards the parent (DPO: its inverse temperature); unused by SFT.
    rejected : DPO and CATTO only: what a pair rejects. ``"samples"``, wrong answers drawn from the parent itself, and
        ``"distractors"``, options of the multiple-choice form: the reference is chosen over them. ``"minority"``, the
        parent's draws outside of its most frequent class: an answer of that class is chosen over them, right or
        wrong, as annotators do who prefer the familiar answer, and self-training on the majority vote.
    group_size : GRPO only: answers drawn per question and step.
    undecided : GRPO only: leave out questions that the parent answers always rightly or always wrongly.
    keep : earlier steps whose weights are kept too, for curves against strength.
    schedule : ``"constant"``, so that a kept step is what a shorter run would end with, or ``"linear"``, decaying
        to 0, which ends less noisily.
    lora_rank : rank of the LoRA adapter on all linear layers; 0 trains all weights.
    options : further settings of the method's trainer, of the class that `METHODS` names for it: `DPOOptions`,
        `CATTOOptions`, `CFTOptions` or `PretrainOptions`.
    style : answer style of `prompts.STYLES`: what a reference answer looks like, and how long a drawn one may get.
    seed : order of the questions, initial adapter, draws.
    """

    method: str
    steps: int
    learning_rate: float
    parent: Stage | None = None
    parent_step: int | None = None
    first: int = 0
    n_questions: int = 320
    batch_size: int = 8
    beta: float = 0.1
    rejected: str = "samples"
    group_size: int = 8
    undecided: bool = True
    keep: tuple[int, ...] = ()
    schedule: str = "constant"
    lora_rank: int = 16
    options: Options | None = None
    style: str = "concise"
    seed: int = 0

    @property
    def draws(self) -> bool:
        """Whether the parent's draws are needed to make its training data."""
        return {"pairs": self.rejected != "distractors", "questions": self.undecided}.get(self.rows, False)

    @property
    def rows(self) -> str:
        """The kind of rows that its method trains on, one of `ROWS`."""
        return METHODS[self.method].rows

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps whose weights are kept, the last one among them."""
        return (*self.keep, self.steps)

    @property
    def settings(self) -> dict[str, object]:
        """What `options` set, by the names of the trainer's configuration."""
        return {} if self.options is None else self.options.settings()

    @property
    def details(self) -> str:
        """What tells it from other stages of its method: what it rejects, and what its options set."""
        rejects = {"rejected": self.rejected} if self.rows == "pairs" else {}
        return ", ".join(f"{name} {value}" for name, value in {**rejects, **self.settings}.items())

    def as_row(self) -> dict:
        """Its fields as its key and `stage.json` hold them: options as pairs of name and value, parents inside."""
        plain = asdict(replace(self, parent=None, parent_step=None, options=None))
        own = {"parent_step": self.parent_step, "options": list(self.settings.items())}
        return {**plain, **own, "parent": self.parent and self.parent.as_row()}

    def with_seed(self, seed: int, before: int | None = None) -> Stage:
        """The same lineage with another seed: this stage, and all before it, which take `before` if it is given."""
        first = seed if before is None else before
        return replace(self, seed=seed, parent=self.parent and self.parent.with_seed(first))

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; use one of {tuple(METHODS)}")
        wanted = METHODS[self.method].options
        if self.options is not None and type(self.options) is not wanted:
            raise ValueError(f"options are {self.options}; method {self.method!r} takes {wanted.__name__}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; use one of {SCHEDULES}")
        if self.rejected not in REJECTED:
            raise ValueError(f"rejected is {self.rejected!r}; use one of {REJECTED}")
        if self.style not in prompts.STYLES:
            raise ValueError(f"style is {self.style!r}; use one of {sorted(prompts.STYLES)}")
        if self.rejected == "distractors" and self.style != "concise":
            raise ValueError(f"distractors are concise answers; with style {self.style!r} use rejected='samples'")
        for name in ("steps", "n_questions", "batch_size", "group_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.rows == "questions" and self.group_size < 2:
            raise ValueError("group_size is 1; a group-relative advantage needs at least 2 answers a question")
        if not (self.learning_rate > 0 and self.beta >= 0 and self.lora_rank >= 0 and self.first >= 0):
            raise ValueError(f"learning_rate must be positive, beta, lora_rank and first not negative: {self}")
        above = self.parent.lora_rank if self.parent else 0
        if above and self.lora_rank and above != self.lora_rank:
            raise ValueError(f"lora_rank is {self.lora_rank}, but the parent's adapter, which goes on, has {above}")
        if self.parent_step is not None and self.parent_step not in (self.parent.kept if self.parent else ()):
            raise ValueError(
                f"parent_step is {self.parent_step}; the parent keeps {self.parent and self.parent.kept}"
            )
        if not all(0 < step < self.steps for step in self.keep):
            raise ValueError(f"keep is {self.keep}; its steps must lie between 0 and steps = {self.steps}")


def label_smoothed(epsilon: float) -> DPOOptions:
    """`Stage.options` of DPO with label smoothing (cDPO): -(1 - epsilon) log sigmoid(h) - epsilon log sigmoid(-h).

    h is beta times the difference of the log-ratios (Mitchell, 2023, a note on DPO with noisy preferences). trl's
    loss `robust` is ((1 - epsilon) A - epsilon B) / (1 - 2 epsilon) of the same two terms A and B, so that
    2 (1 - epsilon) A - (1 - 2 epsilon) robust is cDPO; `sigmoid` alone ignores `label_smoothing`.

    Raises ValueError outside 0 <= epsilon < 0.5.
    """
    if not 0 <= epsilon < 0.5:
        raise ValueError(f"epsilon is {epsilon}; it must lie in [0, 0.5)")
    weights = 2 * (1 - epsilon), -(1 - 2 * epsilon)
    return DPOOptions(epsilon, ("sigmoid", "robust"), weights)
