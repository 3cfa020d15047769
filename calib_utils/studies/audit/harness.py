"""Logs of lm-evaluation-harness: its per-sample files of multiple choice, read by the schema that it writes.

`lm_eval run ... --output_path FOLDER --log_samples` leaves `samples_TASK_DATE.jsonl`, one object per line. What is
read of it (names as in `lm_eval/loggers/evaluation_tracker.py`, which turns numbers and pairs into text):

==================  ================================================================================================
field               content
==================  ================================================================================================
`filtered_resps`    per option [log-likelihood, is_greedy], as text or as numbers; `resps` nests each once more
`arguments`         per option context and continuation: {"gen_args_0": {"arg_0": ..., "arg_1": ...}}, or lists
`target`            position of the right option, several positions, or the option's text
`acc`, `acc_norm`   whether the harness counted the answer as right; checked against what is read here
`doc`, `doc_id`     the row of the data set, and its number
==================  ================================================================================================
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib_utils.errors import DataError
from calib_utils.studies.audit.result import Answered

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d{2}-\d{2}T[\d.:-]+)?\.jsonl$")
_TEXTS = ("question", "query", "goal", "sentence", "premise", "ctx", "passage")  # where data sets keep the question


def task_of(path: Path) -> str:
    """The task that a file of samples is about, by the name that the harness gave it."""
    found = _NAME.search(path.name)
    return found["task"] if found else path.stem


def read_log(path: str | Path, normalised: bool = False) -> list[Answered]:
    """Questions of one file of samples, with the probabilities of their options.

    p_k = exp(l_k) / sum_j exp(l_j), l the log-likelihood of the option given the context; with `normalised` l / c
    in its place, c the option's characters without the blank before it, whose top option is what `acc_norm` counts.
    The harness computes the unnormalised one for its `acc`.

    Raises
    ------
    DataError : a missing or empty file, a line that is not JSON, a field that is missing or not as above, a task
        without options, an answer that the harness counted otherwise. The message names line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no such file: {path}; the harness writes samples_TASK_DATE.jsonl with --log_samples")
    samples, seen = [], {}
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                sample = _Sample.of(path, number, line)
                if sample.key in seen:
                    raise sample.wrong("doc_id", f"{sample.key[0]!r} stands in line {seen[sample.key]} too")
                seen[sample.key] = number
                samples.append(sample)
    if not samples:
        raise DataError(f"{path} holds no samples; was the run cut short?")
    filters = sorted({sample.key[1] for sample in samples})
    if len(filters) > 1:
        raise DataError(f"{path}: field 'filter' holds {filters}; keep the lines of one of them")
    delimiter = " " if not normalised or all(sample.agrees(True, " ") for sample in samples) else ""
    return [sample.answered(normalised, delimiter) for sample in samples]


@dataclass(frozen=True)
class _Sample:
    """One line: log-likelihoods, continuations and row, checked; `key` is the document and the filter."""

    path: Path
    number: int
    row: Mapping
    key: tuple[str, str]
    logliks: tuple[float, ...]
    options: tuple[str, ...]
    context: str

    @classmethod
    def of(cls, path: Path, number: int, line: str) -> _Sample:
        """The sample in a line of a file."""
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number} is not JSON ({error}); if it is the last one, the run was cut short: "
                "delete it or run the task again"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is not an object: {line[:60]!r}")
        bare = cls(path, number, row, ("", ""), (), (), "")
        key = str(bare.field("doc_id")), str(row.get("filter", "none"))
        contexts, options = bare.arguments()
        logliks = bare.responses(len(options))
        # With acc_mutual_info the options are rated a second time without a context; these are not probabilities.
        rated = [i for i, context in enumerate(contexts) if context] if any(contexts) else range(len(options))
        logliks, options = tuple(logliks[i] for i in rated), tuple(options[i] for i in rated)
        if len(options) < 2:
            raise bare.wrong("arguments", f"holds {len(options)} option; the task is no multiple choice")
        if len(set(options)) == 1:  # the options stand in the contexts, as in winogrande
            options = tuple(contexts[i] for i in rated)
        return cls(path, number, row, key, logliks, options, contexts[0])

    def wrong(self, field: str, what: str) -> DataError:
        """The error about a field of this line."""
        return DataError(f"{self.path}, line {self.number}, field {field!r}: {what}")

    def field(self, name: str):
        """A field that must be there."""
        if name not in self.row:
            raise self.wrong(name, f"is missing; the line has {sorted(self.row)}. Was it written by --log_samples?")
        return self.row[name]

    def arguments(self) -> tuple[list[str], list[str]]:
        """Contexts and continuations."""
        given = self.field("arguments")
        if isinstance(given, dict):
            given = [given.get(f"gen_args_{i}") for i in range(len(given))]
        pairs = []
        for i, one in enumerate(given if isinstance(given, list) else [given]):
            pair = [one.get("arg_0"), one.get("arg_1")] if isinstance(one, dict) else one
            if not isinstance(pair, list) or len(pair) < 2 or not all(isinstance(text, str) for text in pair[:2]):
                raise self.wrong("arguments", f"request {i} is {str(one)[:60]}, not context and continuation")
            pairs.append(pair[:2])
        return [context for context, _ in pairs], [option for _, option in pairs]

    def responses(self, n: int) -> list[float]:
        """The log-likelihood of every option."""
        name = "filtered_resps" if "filtered_resps" in self.row else "resps"
        given = self.field(name)
        if not isinstance(given, list) or len(given) != n:
            count = len(given) if isinstance(given, list) else repr(given)
            raise self.wrong(name, f"holds {count} responses for {n} requests")
        found = []
        for i, one in enumerate(given):
            pair = one[0] if name == "resps" and isinstance(one, list) and len(one) == 1 else one
            try:
                value = float(pair[0]) if isinstance(pair, list) and len(pair) == 2 else math.nan
            except (TypeError, ValueError):
                value = math.nan
            if math.isnan(value) or value > 1e-6:
                raise self.wrong(
                    name, f"response {i} is {str(one)[:60]!r}, not [log-likelihood, is_greedy]; is it generated text?"
                )
            found.append(value)
        if not any(map(math.isfinite, found)):
            raise self.wrong(name, "every log-likelihood is -inf")
        return found

    def logits(self, normalised: bool, delimiter: str) -> np.ndarray:
        """Log-likelihoods, or these per character of the option."""
        values = np.array(self.logliks)
        if not normalised:
            return values
        lengths = [len(option.removeprefix(delimiter)) for option in self.options]
        if not all(lengths):
            raise self.wrong("arguments", "an option is empty, so that it has no length to normalise by")
        return values / lengths

    def agrees(self, normalised: bool, delimiter: str) -> bool:
        """Whether some reading of the target gives what the harness counted."""
        return self._right(int(np.argmax(self.logits(normalised, delimiter))), normalised) is not _CONTRADICTION

    def answered(self, normalised: bool, delimiter: str) -> Answered:
        """The question with the probabilities of its options."""
        logits = self.logits(normalised, delimiter)
        top = int(np.argmax(logits))
        right = self._right(top, normalised)
        if right is _CONTRADICTION:
            field = "acc_norm" if normalised else "acc"
            raise self.wrong(
                field, f"is {self.row[field]}, but by target {self.row.get('target')!r} option {top} is not so"
            )
        p = np.exp(logits - logits.max())
        options = tuple(option.strip() for option in self.options)
        doc = self.row.get("doc") if isinstance(self.row.get("doc"), dict) else {}
        texts = (doc.get(name) for name in _TEXTS)
        text = next((one for one in texts if isinstance(one, str) and one.strip()), self.context[-300:])
        return Answered(
            id=f"{self.key[0]}",
            text=text.strip(),
            reference="" if right is None else options[right],
            answers=options,
            shares=tuple(p / p.sum()),
            right=right,
            group=str(doc.get("subject") or doc.get("category") or task_of(self.path)),
        )

    def _right(self, top: int, normalised: bool):
        """Position of the right option; None where it is known only that the top one is not; else a contradiction.

        A target such as "3" may be a position or an option's text: what the harness counted decides.
        """
        counted = self.row.get("acc_norm" if normalised else "acc")
        readings = self._readings()
        if counted is None:
            if not readings:
                raise self.wrong("target", f"{self.field('target')!r} names none of the {len(self.options)} options")
            return top if top in readings[0] else readings[0][0]
        for golds in readings:
            if (top in golds) == bool(float(counted)):
                return top if top in golds else golds[0]
        if readings:
            return _CONTRADICTION
        return top if float(counted) else None

    def _readings(self) -> list[list[int]]:
        target = self.row.get("target")
        if isinstance(target, str) and target.strip().startswith("["):
            try:
                target = ast.literal_eval(target.strip())
            except (SyntaxError, ValueError):
                return []
        if isinstance(target, list):
            golds = [one for item in target for one in (self._positions(item) or [[]])[0]]
            return [golds] if golds else []
        return self._positions(target)

    def _positions(self, target) -> list[list[int]]:
        text, found = str(target).strip(), []
        if re.fullmatch(r"\d+", text) and int(text) < len(self.options):
            found.append([int(text)])
        named = [i for i, option in enumerate(self.options) if option.strip() == text]
        return found + ([named] if named else [])


_CONTRADICTION = object()


def group_logs(paths: list[Path]) -> dict[str, list[Path]]:
    """Files of samples per task, those of folders included.

    Raises DataError for a folder without any.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        inside = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no samples_*.jsonl; run the harness with --output_path and --log_samples")
        for file in inside:
            found[task_of(file)].append(file)
    return dict(found)
