"""Asking: an audit from a model and questions to results; models are loaded only if their records are not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from calib_utils import prompts
from calib_utils.data import entity as entity_of
from calib_utils.data import known_names, load_questions, own_questions, sample_evenly
from calib_utils.errors import ConfigError, DataError, ModelError, SamplingError
from calib_utils.semantics import (
    class_distribution,
    classes,
    of_style,
    option_probabilities,
    right_class,
)
from calib_utils.studies.audit.endpoint import Endpoint, Messages
from calib_utils.studies.audit.harness import group_logs, read_log
from calib_utils.studies.audit.result import Answered, Result, differences, measure
from calib_utils.text import NO_ANSWER, canonical_text
from calib_utils.types import Collapse, Question, Record, Response

if TYPE_CHECKING:
    import pandas as pd

    from calib_utils.models import LanguageModel

KINDS = ("auto", "free", "choice")
_ROWS = (".jsonl", ".csv", ".parquet")
_PROBE = 6  # questions after the first one whose time foretells that of all
_CHUNK = 16  # questions that are computed and kept together
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Settings:
    """How an audit asks.

    Attributes
    ----------
    kind : ``"free"`` answers, whose confidence is the share of draws that mean the same; multiple ``"choice"``, by
        the probabilities of the options; ``"auto"``: choice where all rows of one's own have choices.
    n_samples : M, draws per question at temperature 1; of an endpoint also in multiple choice.
    style : a key of `prompts.STYLES`.
    shots : worked examples in front of a question; None: 10, or as many as there are. Without them chat models put
        one answer into many words, which count as different answers where no known name is found in them.
    chat : use the chat template; None: if the tokenizer has one.
    max_new_tokens : how long an answer may get; None: as the style says.
    seed, n_boot : of shots and draws; data sets simulated for every interval.
    max_rows : prefixes forwarded together, which bounds the memory.

    Raises ConfigError for a value out of range.
    """

    kind: str = "auto"
    n_samples: int = 50
    style: str = "concise"
    shots: int | None = None
    chat: bool | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    n_boot: int = 1000
    max_rows: int = 128

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}; use one of {KINDS}")
        if self.style not in prompts.STYLES:
            raise ConfigError(f"style is {self.style!r}; use one of {sorted(prompts.STYLES)}")
        for name, least in (("n_samples", 2), ("shots", 0), ("max_new_tokens", 1), ("n_boot", 100), ("max_rows", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")


@dataclass(frozen=True)
class Audit:
    """Results of one or several models, and what sets the others apart from the first.

    Attributes
    ----------
    results : one per model, or per task of a log.
    differences : the table of `result.differences`, paired by question.
    data : what was asked.
    """

    results: tuple[Result, ...]
    differences: pd.DataFrame
    data: str


def audit(
    models: str | LanguageModel | Endpoint | Sequence[str | LanguageModel | Endpoint],
    data: str | Path,
    settings: Settings | None = None,
    n: int | None = None,
    examples: str | Path | None = None,
    folder: str | Path = "runs/audit",
    dtype: str = "auto",
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> Audit:
    """Ask one or several models the same questions and measure how far their confidence can be trusted.

    Parameters
    ----------
    models : names as `models.load` takes them; a folder with a peft adapter, whose base model its configuration
        names; ``"BASE+ADAPTER"``; a loaded model (`trained.Trained.load`); an `Endpoint`. The first is what the
        others are compared with.
    data : a file of own rows (`data.own_questions`), or a name in `data.DATASETS`, of which the test split is asked.
    settings : how to ask; by default `Settings()`.
    n : how many questions, spread evenly over groups; None asks all.
    examples : own rows for the worked examples; by default the data set's train split or, for own rows, embedded
        facts, which show the form of an answer only.
    folder : records go to `folder/records`: the same call goes on where one was stopped, and draws nothing twice.
    report : gets a line on what is done and how long it will take, measured on the first questions.

    Raises
    ------
    ModelError, DataError, SamplingError, ConfigError : as loading, reading and sampling do; options asked for where
        a question has none.
    """
    settings = Settings() if settings is None else settings
    models = [models] if isinstance(models, str | Endpoint) or not isinstance(models, Sequence) else list(models)
    if not models:
        raise ConfigError("there is no model to audit; name at least one")
    own = Path(data).suffix in _ROWS
    questions = own_questions(data) if own else load_questions(str(data), "test")
    if n is not None:
        questions = sample_evenly(questions, n, settings.seed)
    choice = _is_choice(settings.kind, questions, own)
    if examples is not None:
        pool = own_questions(examples, "train")
    else:
        pool = load_questions("facts" if own else str(data), "train")
    known = {} if own else known_names(str(data))
    results = []
    for number, model in enumerate(models, start=1):
        start = time.perf_counter()
        opened = _open(model, dtype, device)
        ask = _Ask(opened, questions, pool, choice, settings, known, Path(folder) / "records", report)
        answered, about = ask.endpoint() if isinstance(opened, Endpoint) else ask.local()
        name = f"{opened.name} ({number})" if opened.name in [one.name for one in results] else opened.name
        about["data"] = str(data)
        if about["shots"]:
            about["examples from"] = str(examples or ("facts" if own else data))
        about["seconds"] = round(time.perf_counter() - start, 1)
        results.append(measure(name, answered, about, settings.n_boot, settings.seed))
        report(f"{name}: {results[-1].verdict}")
    return Audit(tuple(results), differences(results, settings.n_boot, settings.seed), str(data))


def audit_logs(
    paths: Sequence[str | Path], normalised: bool = False, n_boot: int = 1000, report: Callable[[str], None] = print
) -> Audit:
    """The same from per-sample logs of lm-evaluation-harness (`harness.read_log`): a result per file.

    Files of one task are compared with the first of them where they are about the same documents.
    """
    results = []
    for task, files in group_logs([Path(path) for path in paths]).items():
        for file in files:
            name = task if len(files) == 1 else f"{task}, {file.parent.name}/{file.name}"
            scale = "per character of the option" if normalised else "not normalised by length"
            about = {"log": str(file), "confidence": f"softmax of the options' log-likelihoods, {scale}"}
            results.append(measure(name, read_log(file, normalised), about, n_boot))
            report(f"{name}: {results[-1].verdict}")
    return Audit(tuple(results), differences(results, n_boot), "logs of lm-evaluation-harness")


def _is_choice(kind: str, questions: Sequence[Question], own: bool) -> bool:
    without = next((question.id for question in questions if not question.choices), None)
    if kind == "choice" and without:
        raise DataError(f"question {without!r} has no choices; use kind='free' (--kind free) or give it some")
    return kind == "choice" or (kind == "auto" and own and without is None)


def _open(model, dtype: str, device: str):
    """A model of whatever names it."""
    if not isinstance(model, str):
        return model
    from calib_utils.models import load

    described = Path(model) / "adapter_config.json"
    if described.is_file():
        base = json.loads(described.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ModelError(f"{described} names no base model; name it yourself: BASE+{model}")
        return replace(load(base, dtype, device, adapter=model), name=model)
    base, plus, adapter = model.partition("+")
    if plus and not Path(model).exists():
        return replace(load(base, dtype, device, adapter=adapter), name=model)
    return load(model, dtype, device)


@dataclass(frozen=True)
class _Ask:
    """One model and what it is asked."""

    model: LanguageModel | Endpoint
    questions: Sequence[Question]
    pool: Sequence[Question]
    choice: bool
    settings: Settings
    known: dict[str, dict[str, str]]
    records: Path
    report: Callable[[str], None]

    def local(self) -> tuple[list[Answered], dict]:
        """A model whose weights are here."""
        from calib_utils.models import describe
        from calib_utils.records import collect, collect_option_logprobs

        lm, settings = self.model, self.settings
        chat = lm.chat_tokenizer is not None if settings.chat is None else settings.chat
        shots = self._shots()
        asked = prompts.build_prompts(self.questions, shots, settings.style, lm.chat_tokenizer if chat else None)
        about = {**describe(lm), **self._about(chat, shots, asked)}
        if not self.choice:
            config, label = self._config(), f"{settings.style}-{'chat' if chat else 'plain'}"

            def draw(part: slice) -> list[Record]:
                some, rest = self.questions[part], (asked[part], config, self.records, label, _CHUNK)
                return collect(lm, some, *rest, settings.max_rows, progress=part.stop is None)

            return self._freely(draw, chat, about)
        ending = prompts.ending(lm, bool(shots) and not chat)
        options = prompts.option_texts(self.questions, asked)

        def rate(part: slice) -> list:
            found, rest = [], (self.records, ending, settings.max_rows)
            for start in range(0, len(asked[part]), _CHUNK):  # each is kept as it is finished
                some = slice(start, start + _CHUNK)
                found += collect_option_logprobs(lm, asked[part][some], options[part][some], *rest)
            return found

        shares = option_probabilities(self._timed(rate))
        about["confidence"] = "probability of the top option, of all options' texts and what ends them"
        answered = [
            _answered(q, q.choices, p[: len(q.choices)] / p.sum(), q.choices.index(q.answer))
            for q, p in zip(self.questions, shares, strict=True)
        ]
        return answered, about

    def endpoint(self) -> tuple[list[Answered], dict]:
        """A model behind a server: options are drawn by their letters, since few servers rate given text."""
        server, settings = self.model, self.settings
        if settings.chat is not None and settings.chat != server.chat:
            raise ConfigError(f"chat is {settings.chat}, the endpoint's is {server.chat}; leave the first out")
        shots = self._shots()
        posed = self.questions
        if self.choice:
            posed = [replace(question, text=with_letters(question)) for question in self.questions]
            shots = [_lettered(shot) for shot in shots if shot.choices]
        asked = prompts.build_prompts(posed, shots, settings.style, Messages if server.chat else None)
        about = {**server.describe(), **self._about(server.chat, shots, asked)}
        config, label = self._config(), f"{settings.style}-{'letters' if self.choice else 'endpoint'}"

        def draw(part: slice) -> list[Record]:
            some, rest = posed[part], (asked[part], config, self.records, label)
            return server.collect(some, *rest, progress=part.stop is None)

        return self._freely(draw, server.chat, about)

    def _freely(self, draw, chat: bool, about: dict) -> tuple[list[Answered], dict]:
        collapse = of_style(self.settings.style, self.known, chat)
        if self.choice:
            collapse = named_option
        found = self._timed(draw)
        answered = []
        for record in found:
            of = record.question
            right = of.answer if self.choice else right_class(of, collapse, record.reference_ids)
            answered.append(_of_record(record, collapse, right))
        draws = [(c, record.question) for record in found for c in record.completions]
        total = sum(c.count for c, _ in draws)
        empty = sum(
            c.count for c, question in draws if collapse(Response(c.text, c.token_ids), question) == NO_ANSWER
        )
        if empty == total:
            raise SamplingError(
                f"{self.model.name!r} gave no answer in any of {total} draws: they are empty or never come to one; "
                f"raise max_new_tokens (now {self._config().max_new_tokens}), or ask it in another style or template"
            )
        about["confidence"] = "share of the draws that mean the same as the most frequent answer"
        about["draws without an answer"] = f"{empty / total:.1%}"
        about["draws cut at their longest"] = f"{sum(c.count for c, _ in draws if not c.finished) / total:.1%}"
        return answered, about

    def _timed(self, collect: Callable[[slice], list]) -> list:
        """All of `collect(slice)`, with a word beforehand on how long it takes, by the first questions."""
        n = len(self.questions)
        if n > 4 * _PROBE:
            collect(slice(0, 1))  # loads the weights
            start = time.perf_counter()
            collect(slice(1, 1 + _PROBE))
            each = (time.perf_counter() - start) / _PROBE
            rest = each * (n - 1 - _PROBE)
            kept = "from records as far as they go; else " if each < 0.005 else ""
            self.report(f"{self.model.name}: {n} questions, {kept}about {_duration(rest)} ({each:.2g} s each)")
        return collect(slice(0, None))

    def _shots(self) -> list[Question]:
        pool = [one for one in self.pool if one.chain] if self.settings.style == "cot" else self.pool
        wanted = min(10, len(pool)) if self.settings.shots is None else self.settings.shots
        if wanted > len(pool):
            raise ConfigError(f"shots is {wanted}; there are {len(pool)} examples to choose from")
        return prompts.pick_shots(pool, wanted, self.settings.seed)

    def _config(self):
        wanted = self.settings
        return prompts.sampling_config(wanted.style, wanted.n_samples, wanted.seed, 1.0, wanted.max_new_tokens)

    def _about(self, chat: bool, shots: Sequence[Question], asked) -> dict:
        told = asdict(self.settings)
        told |= {"kind": "choice" if self.choice else "free", "shots": len(shots), "chat": chat}
        told["max_new_tokens"] = self._config().max_new_tokens
        return {**told, "questions": len(self.questions), "first prompt": asked[0].shared + asked[0].own}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _answered(question: Question, answers, shares, right: int | None, said: Sequence[str] = ()) -> Answered:
    of = question.id, question.text, question.answer
    return Answered(
        *of, tuple(answers), tuple(map(float, shares)), right, question.relation, entity_of(question), tuple(said)
    )


def _of_record(record: Record, collapse: Collapse, target: str) -> Answered:
    question = record.question
    shares = class_distribution(question, record.completions, collapse)
    texts: Mapping[str, list[str]] = {name: [] for name in shares}
    for name, one in zip(classes(question, record.completions, collapse), record.completions, strict=True):
        texts[name].append(f"{one.text.strip()!r} x{one.count}")
    names = list(shares)
    right = names.index(target) if target in shares else None
    return _answered(question, names, shares.values(), right, [", ".join(texts[name][:4]) for name in names])


def with_letters(question: Question) -> str:
    """The text of a multiple-choice question with its options below it, each with a letter to answer with.

    Raises DataError for more options than letters.
    """
    if len(question.choices) > len(_LETTERS):
        raise DataError(f"question {question.id!r} has {len(question.choices)} choices; {len(_LETTERS)} are possible")
    options = [f"{name}. {choice}" for name, choice in zip(_LETTERS, question.choices, strict=False)]
    return "\n".join([question.text, *options, "Answer with the letter."])


def _lettered(shot: Question) -> Question:
    right = _LETTERS[shot.choices.index(shot.answer)]
    return replace(shot, text=with_letters(shot), answer=right, statement=f"The answer is {right}.", choices=None)


def named_option(response: Response, question: Question) -> str:
    """B(z) = the option that a response names, by its letter or by its text."""
    text = response.text.strip().strip("*(")
    letters = _LETTERS[: len(question.choices)]
    if text[:1] and text[:1] in letters and not text[1:2].isalnum():
        return question.choices[letters.index(text[:1])]
    said = canonical_text(text)
    return next((choice for choice in question.choices if canonical_text(choice) == said), said)
