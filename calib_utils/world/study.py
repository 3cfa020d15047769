"""Study: the tables of notebook 07, each computed once for its parameters and kept in the folder of runs.

Scores have one row per condition, training seed and question. `condition`, `panel` and `strength` say what was
trained: panel is the kind of comparison, strength the steps, width, shift or weight along it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from calib_utils import crossing, metrics, models, semantics, storage
from calib_utils.crossing import Lazy
from calib_utils.data import world as data_world
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import STYLES, LookupWorld
from calib_utils.metrics.scores import auroc
from calib_utils.models import LanguageModel
from calib_utils.records.kept import code_digest, kept
from calib_utils.studies.selection import select
from calib_utils.studies.temperature_scaling import fit_temperature
from calib_utils.types import Completion, Origin, Record
from calib_utils.world import house, mechanism

if TYPE_CHECKING:
    import torch

    from calib_utils.world import exact, probe
    from calib_utils.world.stack import Stack
    from calib_utils.world.training import Reading, Tuning, draw, read_answers, read_lookups, response_mask, tune
else:  # what trains and measures: tables that are there already need none of it, nor torch
    torch, exact, probe = map(Lazy, ("torch", "calib_utils.world.exact", "calib_utils.world.probe"))
    Stack = Lazy("calib_utils.world.stack:Stack")
    names = ("Reading", "Tuning", "draw", "read_answers", "read_lookups", "response_mask", "tune")
    Reading, Tuning, draw, read_answers, read_lookups, response_mask, tune = (
        Lazy(f"calib_utils.world.training:{name}") for name in names
    )

_UNUSED = ("profile", "figures", "runs", "n_boot")  # parameters that no table of a study depends on
_CHOICES = 4
_TURNS = 5  # orders of the candidates
_MODE = "DPO, mode"
_LIMITS = {"signed": (-1.0, 1.0), "gap": (-np.inf, np.inf), "kl": (0.0, np.inf)}  # of others: 0 to 1
MEASURES = {
    "error": "calibration error (smECE against the truth)",
    "gap": "loss gap (nats)",
    "signed": "mean confidence minus accuracy",
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "distance": "distance from the true posterior",
    "choices": "ECE of multiple choice",
    "choices_accuracy": "accuracy of multiple choice",
    "covered": "mass of all answers",
}


class Study:
    """All that notebook 07 trains and measures in the exact world, for the parameters in `run` (a `WorldStudy`)."""

    def __init__(self, run) -> None:
        """Worlds, one per training seed; nothing is trained yet."""
        self.run = run
        self.home = Path(run.records_dir).parent / "world"
        self.seeds = list(run.train_seeds)
        self.worlds = [run.answer_world(seed) for seed in self.seeds]
        self.lookup_worlds = [run.lookup_world(seed) for seed in self.seeds]

    @cached_property
    def reading(self) -> Reading:
        """How the base models read."""
        run = self.run
        return Reading(run.read_steps, run.read_batch, run.read_lr, run.width, keep=tuple(run.kept_steps))

    @cached_property
    def read(self) -> dict[int, Stack]:
        """Base models by reading step; trained when first asked for."""
        with _bar(self.reading.steps, "reading") as moved:
            return read_answers(self.worlds, self.reading, moved)

    @cached_property
    def sentences(self) -> dict[int, Stack]:
        """Models that have read sentences about the same names in place of short answers, by reading step."""
        with _bar(self.reading.steps, "sentences") as moved:
            return read_answers(self._in_sentences(), self.reading, moved)

    def _in_sentences(self) -> list[AnswerWorld]:
        return [replace(world, style="sentence") for world in self.worlds]

    @property
    def base(self) -> Stack:
        """The models that have read everything."""
        return self.read[self.run.read_steps]

    def language_model(self, at: int) -> LanguageModel:
        """A base model as one of the project's own: saved in the folder of runs, and loaded like any other."""
        origin = Origin(f"world {self.seeds[at]}, width {self.run.width}", key=storage.digest(self._parts()))
        key = "" if crossing.reading() else self._key("base")
        folder = self.home / f"base-{self.seeds[at]}-{key}"
        if not (crossing.reading() or folder.is_dir()):
            self.base.save(at, self.worlds[at].tokenizer(), folder)
        return models.load(str(folder), dtype="float32", device="cpu", origin=origin)

    def exact(self, at: int, n: int) -> np.ndarray:
        """(n, answers) class masses of one base model for its first `n` test questions."""

        def compute() -> pd.DataFrame:
            names = [world.names("test", n, self.run.seed) for world in self.worlds]
            masses = exact.answer_masses(self.base, self.worlds, names)[at]
            return pd.DataFrame(masses, columns=list(self.worlds[at].answers))

        return self._kept(f"exact-{at}-{n}", compute).to_numpy()

    @cached_property
    def lookups(self) -> dict[int, Stack]:
        """Models of look-ups by reading step; trained when first asked for."""
        run = self.run
        kept = tuple(s for s in run.lookup_kept)
        reading = Reading(run.lookup_steps, run.lookup_batch, run.lookup_lr, run.width, run.lookup_layers, kept)
        with _bar(reading.steps, "look-ups") as moved:
            return read_lookups(self.lookup_worlds, reading, moved)

    @cached_property
    def broken(self) -> Stack:
        """The base models after preferences for the mode, as many steps as are reported."""
        return tune(self.base, self.worlds, self._dpo())[self.run.tune_steps]

    def _dpo(self, **changes) -> Tuning:
        run = self.run
        return replace(Tuning("dpo", run.tune_steps, run.tune_lr, run.tune_batch), **changes)

    def tunings(self) -> dict[tuple[str, str], Tuning]:
        """What is trained after reading: (panel, condition) -> settings."""
        run, last = self.run, max(self.run.strengths)
        kept = {"steps": last, "keep": tuple(s for s in run.strengths if s != last)}
        catto = {"calibration_weight": 1.0, "surrogate_temperature": run.surrogate_temperature}
        found = {
            ("tuning", "SFT"): Tuning("sft", learning_rate=run.tune_lr, batch_size=run.tune_batch, **kept),
            ("tuning", "GRPO"): Tuning(
                "grpo", learning_rate=run.tune_lr, batch_size=run.grpo_batch, group_size=run.grpo_group, **kept
            ),
            ("tuning", "DPO, drawn"): self._dpo(preferred="drawn", **kept),
            ("tuning", _MODE): self._dpo(**kept),
            ("method", "DPO + cross-entropy"): self._dpo(sft_weight=1.0),
            ("method", "DPO + BCE"): self._dpo(calibration_weight=run.bce_weight, calibration_form="bce"),
            ("method", "cDPO"): self._dpo(label_smoothing=run.label_smoothing),
            ("method", "CATTO, s = 1"): self._dpo(calibration_weight=1.0),
            ("method", f"CATTO, s = {run.surrogate_temperature:g}"): self._dpo(**catto),
        }
        changed = {f"beta {beta:g}": self._dpo(beta=beta) for beta in run.betas}
        changed |= {f"lambda {w:g}": self._dpo(**{**catto, "calibration_weight": w}) for w in run.weights}
        changed |= {f"s {s:g}": self._dpo(**{**catto, "surrogate_temperature": s}) for s in run.temperatures}
        changed |= {f"rejected {side}": self._dpo(**catto, rejected_side=side) for side in run.sides}
        changed |= {f"form {form}": self._dpo(**catto, calibration_form=form) for form in run.forms}
        found |= {("ablation", name): settings for name, settings in changed.items()}
        return found

    def measured(self, by: Sequence[str]) -> pd.DataFrame:
        """`per_seed` of `answers`: what is shipped, a hundredth of their size."""
        return self._kept(f"measured-{'-'.join(by)}", lambda: per_seed(self.answers(), by))

    def answers(self) -> pd.DataFrame:
        """Scores of every model of answers: reading, width, shift, tuning, methods and remedies."""
        return self._kept("answers", lambda: pd.concat(self._answers(), ignore_index=True))

    def _answers(self) -> Iterator[pd.DataFrame]:
        run = self.run
        for step, stack in self.read.items():
            yield self._scored(stack, "reading", "base", step)
        yield self._scored(self.base, "width", "base", run.width)
        yield self._scored(self.base, "method", "base", 0)
        for width in run.other_widths:
            stack = read_answers(self.worlds, replace(self.reading, width=width, keep=()))[run.read_steps]
            yield self._scored(stack, "width", "base", width)
        for shift in run.shifts:
            moved = [replace(world, shift=shift) for world in self.worlds]
            yield self._scored(self.base, "shift", "base", shift, moved)
        settings, s = self.tunings(), f"s {run.surrogate_temperature:g}"
        again = {  # shown in a second panel, too
            _MODE: [("method", "DPO"), ("ablation", "lambda 0 (DPO), beta 0.1")],
            f"CATTO, s = {run.surrogate_temperature:g}": [("ablation", f"lambda 1, {s}, z, l1")],
            "CATTO, s = 1": [("ablation", "s 1")],
        }
        for (panel, name), tuning in tqdm(settings.items(), desc="tuning", mininterval=5):
            for step, stack in tune(self.base, self.worlds, tuning).items():
                table = self._scored(stack, panel, name, step)
                yield table
                if step == run.tune_steps and name in again:
                    yield from (table.assign(panel=panel, condition=name) for panel, name in again[name])
                if name == _MODE and step == run.tune_steps:
                    yield self._cooled(stack, step)
        for name, weight in (("CFT after DPO", 0.0), ("RCFT after DPO", 1.0)):
            repair = Tuning("cft", run.tune_steps, run.tune_lr, run.tune_batch, calibration_weight=weight)
            yield self._scored(tune(self.broken, self.worlds, repair)[run.tune_steps], "method", name, run.tune_steps)

    def _names(self, split: str) -> list[np.ndarray]:
        return [world.names(split, self.run.n_questions, self.run.seed) for world in self.worlds]

    def _scored(
        self, stack: Stack, panel: str, name: str, strength: float, worlds=None, masses=None, cooled=None
    ) -> pd.DataFrame:
        """Scores of one condition; `masses` in place of the model's own, `cooled` the temperatures of its choices."""
        worlds, names = worlds or self.worlds, self._names("test")
        masses = exact.answer_masses(stack, worlds, names) if masses is None else masses
        rngs = [np.random.default_rng([world.seed, self.run.seed, 31]) for world in worlds]
        references = [world.draw(asked, rng)[0] for world, asked, rng in zip(worlds, names, rngs, strict=True)]
        options = [_options(world, right, rng) for world, right, rng in zip(worlds, references, rngs, strict=True)]
        rated = exact.option_masses(stack, worlds, names, options)
        parts = []
        for i, world in enumerate(worlds):
            truth = world.posterior(names[i])
            table = exact.scores(masses[i], truth, references[i], [f"{a}-{b}-{c}" for a, b, c in names[i]])
            p = semantics.option_probabilities(list(rated[i] if cooled is None else rated[i] / cooled[i]))
            among = np.take_along_axis(truth, options[i], axis=1)
            picked = p.argmax(axis=1)[:, None]
            table["choice_confidence"] = np.minimum(p.max(axis=1), 1.0)
            table["choice_truth"] = (np.take_along_axis(among, picked, axis=1) / among.sum(axis=1, keepdims=True))[
                :, 0
            ]
            parts.append(table.assign(panel=panel, condition=name, strength=float(strength), seed=world.seed))
        return pd.concat(parts, ignore_index=True)

    def _cooled(self, stack: Stack, step: int) -> pd.DataFrame:
        """Temperature scaling of class masses and of multiple choice, both fitted on dev questions of every seed."""
        dev, rngs = self._names("dev"), [np.random.default_rng([world.seed, 32]) for world in self.worlds]
        right = [world.draw(asked, rng)[0] for world, asked, rng in zip(self.worlds, dev, rngs, strict=True)]
        found, masses = (exact.answer_masses(stack, self.worlds, names) for names in (dev, self._names("test")))
        options = [_options(world, a, rng) for world, a, rng in zip(self.worlds, right, rngs, strict=True)]
        rated, cooled = exact.option_masses(stack, self.worlds, dev, options), []
        for i, answers in enumerate(right):
            scaled = masses[i] ** (1 / fit_temperature(list(found[i]), answers.tolist()))
            masses[i] = scaled / scaled.sum(axis=1, keepdims=True)
            at = (options[i] == answers[:, None]).argmax(axis=1)
            cooled.append(fit_temperature(list(semantics.option_probabilities(list(rated[i]))), at.tolist()))
        return self._scored(stack, "method", "DPO, scaled", step, masses=masses, cooled=cooled)

    def tilts(self) -> pd.DataFrame:
        """Scores of the exact predictor, tilted by known amounts: condition `tilt`, strength t."""
        parts = []
        for world, names in zip(self.worlds, self._names("test"), strict=True):
            truth = world.posterior(names).max(axis=1)
            for t in self.run.tilts:
                rows = {"confidence": mechanism.tilt(truth, t), "truth": truth}
                parts.append(pd.DataFrame(rows).assign(panel="tilt", condition="tilt", strength=t, seed=world.seed))
        return pd.concat(parts, ignore_index=True)

    def tilt_curve(self) -> pd.DataFrame:
        """The closed form of the loss gap of tilts between the smallest and the largest: t, gap (mean over seeds)."""
        ends = min(self.run.tilts), max(self.run.tilts)
        truths = [w.posterior(n).max(axis=1) for w, n in zip(self.worlds, self._names("test"), strict=True)]
        at = np.linspace(*ends, 81)
        return pd.DataFrame({"t": at, "gap": [np.mean([mechanism.tilted_gap(p, t) for p in truths]) for t in at]})

    def chains(self) -> pd.DataFrame:
        """Scores of look-ups by style, k and reading step; `truth` is the posterior of the text that was read.

        `right` is whether the prediction is where the tables lead, without a slip: what an exam would count.
        """
        return self._kept("chains", lambda: pd.concat(self._chains(), ignore_index=True))

    def _chains(self) -> Iterator[pd.DataFrame]:
        for step, stack in self.lookups.items():
            for style in STYLES:
                for k in range(1, self.run.longest + 1):
                    problems = self._problems(k)
                    paths = exact.lookup_paths(stack, self.lookup_worlds, problems, style)
                    for i, world in enumerate(self.lookup_worlds):
                        right = world.steps(problems[i])[:, -1]
                        truth = read_posterior(world, problems[i])
                        ids = ["-".join(map(str, problem)) for problem in problems[i]]
                        table = exact.scores(paths[i].sum(axis=1), truth, right, ids).rename(
                            columns={"correct": "right"}
                        )
                        yield table.assign(style=style, k=k, strength=float(step), seed=world.seed)

    def _problems(self, k: int, split: str = "test", n: int | None = None) -> list[np.ndarray]:
        found = [world.problems(k, split) for world in self.lookup_worlds]
        n = min(n or self.run.n_chains, *map(len, found))
        return [world.pick(k, split, n, self.run.seed) for world in self.lookup_worlds]

    def growth(self) -> pd.DataFrame:
        """g_i along one drawn chain per question: columns k, given (steps), seed, question, confidence, right."""
        return self._kept("growth", lambda: pd.concat(self._growth(), ignore_index=True))

    def _growth(self) -> Iterator[pd.DataFrame]:
        stack = self.lookups[self.run.lookup_steps]
        for k in range(2, self.run.longest + 1):
            problems = self._problems(k)
            paths = exact.lookup_paths(stack, self.lookup_worlds, problems, "cot")
            for i, world in enumerate(self.lookup_worlds):
                rng, size = np.random.default_rng([world.seed, 33, k]), world.n_numbers
                ways = paths[i].sum(axis=2)
                taken = (rng.random((len(ways), 1)) * ways.sum(axis=1, keepdims=True) >= ways.cumsum(axis=1)).sum(
                    axis=1
                )
                steps = np.stack(np.unravel_index(np.minimum(taken, ways.shape[1] - 1), (size,) * (k - 1)), axis=1)
                found = exact.intermediate(paths[i], steps, k)
                right = paths[i].sum(axis=1).argmax(axis=1) == world.steps(problems[i])[:, -1]
                for given in range(k):
                    rows = {"question": np.arange(len(found)), "confidence": found[:, given], "right": right}
                    yield pd.DataFrame(rows).assign(k=k, given=given, seed=world.seed)

    def learnability(self) -> pd.DataFrame:
        """KL gap of the probe and calibration error: columns family, setting, k, seed, kl, error."""
        return self._kept("learnability", lambda: pd.DataFrame(self._learnability()))

    def _learnability(self) -> Iterator[dict]:
        run = self.run
        told = self._in_sentences()
        yield from (row for step, stack in self.read.items() for row in self._of_names("answers", f"@{step}", stack))
        yield from self._of_names("answers", _MODE, self.broken)
        for step, stack in self.sentences.items():
            yield from self._of_names("sentences", f"@{step}", stack, told)
        for step, stack in self.lookups.items():
            for k in range(1, run.longest + 1):
                for style in STYLES:
                    pool, problems = self._problems(k, "train", run.probe_pool), self._problems(k)
                    targets, masses = (
                        exact.lookup_paths(stack, self.lookup_worlds, found, style).sum(axis=2)
                        for found in (pool, problems)
                    )
                    pair = zip(self.lookup_worlds, pool, problems, strict=True)
                    prompts = [(w.prompt_ids(a, style), w.prompt_ids(b, style)) for w, a, b in pair]
                    ids, asked = (exact.stacked(each) for each in zip(*prompts, strict=True))
                    first = self.lookup_worlds[0].first_number
                    gaps = self._probed(stack, ids, targets, first, (asked, masses))
                    for i, world in enumerate(self.lookup_worlds):
                        right = masses[i].argmax(axis=1) == world.steps(problems[i])[:, -1]
                        confidence = masses[i].max(axis=1)
                        family = "at once" if style == "concise" else "by a chain"
                        yield self._learned(family, f"@{step}", k, world.seed, gaps[i], confidence, right)

    def _of_names(self, family: str, setting: str, stack: Stack, worlds=None) -> Iterator[dict]:
        worlds, test = worlds or self.worlds, self._names("test")
        train = [world.names("train", self.run.probe_pool, self.run.seed) for world in worlds]
        ids, asked = (
            exact.stacked([world.prompt_ids(n) for world, n in zip(worlds, names, strict=True)])
            for names in (train, test)
        )
        targets, masses = (exact.answer_masses(stack, worlds, names) for names in (train, test))
        gaps = self._probed(stack, ids, targets, worlds[0].first_answer, (asked, masses))
        for i, world in enumerate(worlds):
            top, truth = masses[i].argmax(axis=1)[:, None], world.posterior(test[i])
            reached = np.take_along_axis(truth, top, axis=1)[:, 0]
            yield self._learned(family, setting, 0, world.seed, gaps[i], masses[i].max(axis=1), reached)

    def _probed(self, stack: Stack, ids, targets, first: int, held_out) -> np.ndarray:
        return probe.kl_gap(
            stack, ids, targets, first, held_out, self.seeds, self.run.probe_steps, rank=self.run.probe_rank
        )

    @staticmethod
    def _learned(family: str, setting: str, k: int, seed: int, gaps, confidence, reached) -> dict:
        error = _error(np.minimum(confidence, 1.0), reached.astype(float))
        label = f"k{k} {setting}" if k else setting
        about = {"family": family, "setting": setting, "k": k, "label": label, "seed": seed}
        return about | {"kl": float(gaps.mean()), "error": error}

    def selection(self) -> pd.DataFrame:
        """Confidence@k, vote, own probability, oracle, Bayes choice: columns model, strategy, k, seed, correct."""
        return self._kept("selection", lambda: pd.concat(self._selection(), ignore_index=True))

    def _selection(self) -> Iterator[pd.DataFrame]:
        run = self.run
        catto = self._dpo(calibration_weight=1.0, surrogate_temperature=run.surrogate_temperature)
        every = {"base": self.base, "DPO": self.broken, "CATTO": tune(self.base, self.worlds, catto)[run.tune_steps]}
        for name, stack in every.items():
            for i, world in enumerate(self.worlds):
                found, posterior = self.drawn(stack, i, run.n_select, max(run.candidates))
                for k in run.candidates:
                    rows = select(found, house.collapse(world), [k], repeats=_TURNS, seed=run.seed)
                    table = rows.groupby("strategy", as_index=False)["correct"].mean()
                    bayes = {"strategy": "Bayes choice", "correct": _bayes(found, world, posterior, k)}
                    table = pd.concat([table, pd.DataFrame([bayes])], ignore_index=True)
                    yield table.assign(model=name, k=k, seed=world.seed)

    def drawn(self, stack: Stack, at: int, n: int, m: int) -> tuple[list[Record], np.ndarray]:
        """Records of `m` draws for `n` test questions of one model, and the true posterior of each question."""
        world = self.worlds[at]
        names, questions = world.names("test", n, self.run.seed), world.questions("test", n, self.run.seed)
        one = Stack(stack.config, {name: weight[at : at + 1] for name, weight in stack.weights.items()})
        ids = exact.stacked([world.prompt_ids(names).repeat(m, axis=0)])
        tokens, logprobs, top = draw(one, ids, world.longest, [np.random.default_rng([world.seed, 34])])
        inside = response_mask(tokens)
        total = ((logprobs * inside).sum(dim=-1)[0].tolist(), ((top * inside).sum(-1) / inside.sum(-1))[0].tolist())
        lengths, tokenizer = inside.sum(dim=-1)[0].long().tolist(), world.tokenizer()
        records = []
        for i, question in enumerate(questions):
            counted: dict[tuple, int] = {}
            about = {}
            for row in range(i * m, (i + 1) * m):
                said = tuple(tokens[0, row, : lengths[row]].tolist())
                counted[said] = counted.get(said, 0) + 1
                about[said] = total[0][row], total[1][row]
            completions = tuple(
                Completion(
                    tokenizer.decode(said, skip_special_tokens=True),
                    said,
                    count,
                    about[said][0],
                    said[-1] == 0,
                    about[said][1],
                )
                for said, count in counted.items()
            )
            records.append(Record(question, completions, (), {"model": "world"}, question.id))
        return records, world.posterior(names)

    def mechanism(self) -> dict[str, pd.DataFrame]:
        """One question's numbers for a drawing: its texts, its classes, and the tilt that preferences made.

        The first seed's test question whose two best answers are most even [choice: so that the collapse shows].
        Tables `texts` (text, class, probability) and `classes` (class, truth, read, preferred), most probable first.
        """
        texts = self._kept("mechanism-texts", lambda: self._mechanism[0])
        return {"texts": texts, "classes": self._kept("mechanism-classes", lambda: self._mechanism[1])}

    @cached_property
    def _mechanism(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        world, names = self.worlds[0], self._names("test")
        truth = world.posterior(names[0])
        best = np.sort(truth, axis=1)[:, ::-1]
        at = int(np.argmin(np.abs(best[:, 0] - 0.5) + np.abs(best[:, 1] - 0.3)))
        one = [asked[at : at + 1] for asked in names]
        base, broken = (exact.answer_masses(stack, self.worlds, one)[0, 0] for stack in (self.base, self.broken))
        order = np.argsort(-truth[at])
        ids = torch.from_numpy(world.prompt_ids(one[0]))
        rows = []
        for a in order[:3]:
            for form, text in enumerate(world.forms(world.answers[a])):
                answer = torch.from_numpy(world.answer_ids(one[0], np.array([a]), np.array([form])))
                said = torch.cat([ids, answer[:, :-1]], dim=1).expand(len(self.worlds), 1, -1)
                logprobs = self.base.logits(said, world.longest)[0, 0].log_softmax(dim=-1)
                p = (logprobs.gather(-1, answer[0][:, None])[:, 0] * response_mask(answer)[0]).sum().exp().item()
                rows.append({"text": text, "class": world.answers[a], "probability": p})
        named = {"class": [world.answers[a] for a in order], "truth": truth[at][order]}
        question = world.questions("test", self.run.n_questions, self.run.seed)[at].text
        classes = pd.DataFrame({**named, "read": base[order], "preferred": broken[order]}).assign(question=question)
        return pd.DataFrame(rows), classes

    def _parts(self) -> dict:
        return {name: value for name, value in self.run.model_dump().items() if name not in _UNUSED}

    def _key(self, name: str) -> str:
        parts = self._parts()
        told = json.dumps([name, parts, _code(), torch.__version__], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _kept(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        key = "" if crossing.reading() else f"-{self._key(name)}"
        return kept("world", self.home / f"{name}{key}.table", name, self._parts(), compute)


@contextlib.contextmanager
def _bar(total: int, label: str):
    """A progress bar as a function of the step, quiet between five seconds."""
    with tqdm(total=total, desc=label, mininterval=5) as bar:
        yield lambda step: bar.update(step - bar.n)


def _code() -> str:
    """Changes when the code of the world does: tables of other code are not used again."""
    shown = ("pictures.py", "statements.py", "report.py")  # these make no table
    folders = Path(__file__).parent, Path(data_world.__file__).parent
    sources = [path for folder in folders for path in sorted(folder.glob("*.py")) if path.name not in shown]
    return code_digest(sources)


def _options(world: AnswerWorld, right: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 4) answers to choose from, the right one among them at a random place."""
    order = rng.random((len(right), world.n_answers))
    order[np.arange(len(right)), right] = -1.0
    taken = order.argsort(axis=1)[:, : min(_CHOICES, world.n_answers)]
    return rng.permuted(taken, axis=1)


def read_posterior(world: LookupWorld, problems: np.ndarray) -> np.ndarray:
    """(n, numbers) probability of every answer in the text that is read: a product of k noisy steps."""
    size = world.n_numbers
    slip = np.full((size, size), world.slips / (size - 1)) + np.eye(size) * (
        1 - world.slips - world.slips / (size - 1)
    )
    p = np.eye(size)[problems[:, 0]]
    for table in problems[:, 1:].T:
        moved = np.zeros_like(p)
        np.put_along_axis(moved, world.tables[table], p, axis=1)
        p = moved @ slip
    return p


def _bayes(found: Sequence[Record], world: AnswerWorld, posterior: np.ndarray, k: int) -> float:
    """Share of right choices when of the first k candidates the one is kept that is most probable in truth."""
    order = {answer: a for a, answer in enumerate(world.answers)}
    hits = []
    for record, p in zip(found, posterior, strict=True):
        names = semantics.classes(record.question, record.completions, house.collapse(world))
        every = np.repeat(np.arange(len(names)), [c.count for c in record.completions])
        for turn in range(_TURNS):
            drawn = np.random.default_rng([turn, *record.question.id.encode()]).permutation(every)[:k]
            among = [order[names[i]] for i in drawn if names[i] in order]
            hits.append(bool(among) and world.answers[max(among, key=lambda a: p[a])] == record.question.answer)
    return float(np.mean(hits))


def _error(confidence: np.ndarray, truth: np.ndarray) -> float:
    return float(metrics.smece(confidence, truth, np.ones((1, len(truth))))[0])


def per_seed(scores: pd.DataFrame, by: Sequence[str], truth: str = "truth") -> pd.DataFrame:
    """`MEASURES` of every condition and training seed, against the known probability in column `truth`: no outcome is
    drawn, so that no noise of outcomes is left in them.

    Columns: those of `by`, seed, n, auroc, and the measures that the table has the columns for.
    """
    rows = []
    for key, part in scores.groupby([*by, "seed"], sort=False):
        confidence, true = part["confidence"].to_numpy(), part[truth].to_numpy(dtype=float)
        row = dict(zip([*by, "seed"], key, strict=True)) | {"n": len(part), "error": _error(confidence, true)}
        row |= {"gap": mechanism.loss_gap(confidence, true).value, "signed": float((confidence - true).mean())}
        row |= {"accuracy": float(true.mean()), "confidence": float(confidence.mean())}
        row["auroc"] = _auroc(confidence, true)
        row |= {name: float(part[name].mean()) for name in ("distance", "covered") if name in part}
        if "choice_truth" in part:
            pair = part["choice_confidence"].to_numpy(), part["choice_truth"].to_numpy()
            row["choices"] = float(metrics.ece_equal_width(*pair, np.ones((1, len(part))))[0])
            row["choices_accuracy"] = float(pair[1].mean())
        rows.append(row)
    return pd.DataFrame(rows)


def _auroc(confidence: np.ndarray, true: np.ndarray) -> float:
    """Probability that a right answer has more confidence than a wrong one; every answer is both, in known shares."""
    weights = np.concatenate([true, 1 - true])[None]
    return float(auroc(np.tile(confidence, 2), np.repeat([1.0, 0.0], len(true)), weights)[0])


def over_seeds(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Mean of columns over training seeds with Student's 95 % interval, in long form.

    Columns: those of `by`, metric, value, low, high, n (seeds), questions (of each seed, if the table says so). Ends
    are cut to the range of the measure. Without a second seed low and high are the value.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        questions = {"questions": round(part["n"].mean())} if "n" in part else {}
        for column in columns:
            found = seed_estimate(part[column].to_numpy(), limits=_LIMITS.get(column, (0.0, 1.0)))
            row = {**dict(zip(by, key, strict=True)), "metric": column}
            rows.append(row | {name: getattr(found, name) for name in ("value", "low", "high", "n")} | questions)
    return pd.DataFrame(rows)


def points(
    table: pd.DataFrame, by: Sequence[str], columns: Sequence[str] = ("gap", "error", "signed")
) -> pd.DataFrame:
    """Means over training seeds side by side: columns of `by`, n (seeds), then name, name_low, name_high of each."""
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True)) | {"n": len(part)}
        for column in columns:
            found = seed_estimate(part[column].to_numpy(), limits=_LIMITS.get(column, (0.0, 1.0)))
            row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def along(answers: pd.DataFrame, tilts: pd.DataFrame) -> pd.DataFrame:
    """`points` of every different condition, with a column `group` for a picture: what was done to it."""
    found = points(pd.concat([answers, tilts]), ["panel", "condition", "strength"])
    named = {"tilt": "exact, tilted", "method": "remedies", "ablation": "remedies"}
    group = found["panel"].replace(named).where(found["panel"] != "tuning", found["condition"])
    return found.assign(group=group).drop_duplicates(["gap", "error"], ignore_index=True)


def seed_estimate(
    values: Sequence[float], minus: Sequence[float] | None = None, limits: tuple[float, float] = (-np.inf, np.inf)
) -> metrics.Estimate:
    """Mean over training seeds, or of the paired difference to another model's values, with Student's interval.

    Its ends are cut to `limits`, the range of the measure.
    """
    values = np.asarray(values, dtype=float) - (0.0 if minus is None else np.asarray(minus, dtype=float))
    mean, n = float(values.mean()), len(values)
    reach = 0.0 if n < 2 else float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return metrics.Estimate(mean, max(mean - reach, limits[0]), min(mean + reach, limits[1]), n)


def paired(table: pd.DataFrame, first: str, second: str, measure: str, label: str = "condition") -> metrics.Estimate:
    """A measure of one condition minus that of another, paired by training seed."""
    sides = [table[table[label] == name].sort_values("seed")[measure].to_numpy() for name in (first, second)]
    return seed_estimate(*sides)


def quickstart(seed: int = 0, n: int = 500) -> pd.DataFrame:
    """Train one small model, measure it, break it by preferences and repair it: one row per stage.

    Columns: stage, error (smECE against the truth), accuracy, confidence, and best, the true posterior's accuracy.
    """
    worlds = [AnswerWorld(seed=seed)]
    names = [worlds[0].names("test", n)]
    base = read_answers(worlds, Reading())[Reading().steps]
    dpo = Tuning("dpo", 50, batch_size=128)
    stages = {"read": base, "preferences": tune(base, worlds, dpo)[50]}
    stages["CATTO"] = tune(base, worlds, replace(dpo, calibration_weight=1.0, surrogate_temperature=0.3))[50]
    rows = []
    for name, stack in stages.items():
        masses, truth = exact.answer_masses(stack, worlds, names)[0], worlds[0].posterior(names[0])
        table = exact.scores(masses, truth, truth.argmax(axis=1), range(n))
        error = _error(table["confidence"].to_numpy(), table["truth"].to_numpy())
        about = {"accuracy": table["truth"].mean(), "confidence": table["confidence"].mean()}
        rows.append({"stage": name, "error": error, **about, "best": table["best"].mean()})
    return pd.DataFrame(rows)
