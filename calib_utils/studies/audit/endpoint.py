"""Endpoints: a model behind an OpenAI-compatible server (vLLM, llama.cpp, `transformers serve`, a provider's).

The server's own template, sampler and weights are what is measured. Draws at temperature 1 are what the model's
probabilities are read from; servers that cut the distribution by default (top-k, min-p) are told not to by `extra`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from calib_utils.errors import ModelError, SamplingError
from calib_utils.records.resuming import resume
from calib_utils.storage import digest
from calib_utils.types import Completion, Prompt, Question, Record, SamplingConfig


class Messages:
    """Stands in for a tokenizer with a chat template: the "text" of a prompt is its list of messages, as JSON."""

    chat_template = "messages"

    @staticmethod
    def apply_chat_template(turns, tokenize: bool, add_generation_prompt: bool) -> str:
        """The turns as JSON; the server applies the model's own template."""
        return json.dumps(turns, ensure_ascii=False)


@dataclass(frozen=True)
class Endpoint:
    """A model at a server that speaks OpenAI's protocol.

    Attributes
    ----------
    name : what the server calls the model.
    url : where its API begins, such as ``"http://localhost:8000/v1"``.
    chat : ask by `/chat/completions`; else by `/completions`, which base models need.
    key_variable : the environment variable that holds the key. The key itself is kept nowhere.
    per_request : draws asked for in one request; 1 for a server that gives no more.
    extra : further fields of every request, such as ``{"top_k": 0, "min_p": 0}`` for llama.cpp.
    logprobs : ask for log-probabilities too.
    workers : requests at once.
    retries : how often a request that failed for load (429, 5xx) or connection is sent again; `Retry-After` counts.
    timeout : seconds to wait for an answer.

    Raises ModelError for a URL with a password or a query in it, which would end up in records.
    """

    name: str
    url: str
    chat: bool = True
    key_variable: str = "OPENAI_API_KEY"
    per_request: int = 8
    extra: Mapping[str, object] = field(default_factory=dict)
    logprobs: bool = True
    workers: int = 4
    retries: int = 6
    timeout: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(f"the endpoint's URL must begin with http:// or https://, got {parts.scheme!r}")
        if parts.username or parts.password or parts.query:
            raise ModelError(f"the endpoint's URL holds a password or a query; put the key into ${self.key_variable}")
        if self._key() and self._key() in json.dumps(dict(self.extra)):
            raise ModelError(f"extra holds the key, and is told in records; leave it to ${self.key_variable}")
        if self.per_request < 1 or self.workers < 1:
            raise ModelError(f"per_request is {self.per_request}, workers {self.workers}; both must be at least 1")

    def describe(self) -> dict[str, object]:
        """Provenance, as `models.describe` of a local model; what decides the draws, and never the key."""
        api = "chat/completions" if self.chat else "completions"
        told = {"model": self.name, "server": self.url, "api": api, "extra": dict(self.extra)}
        fingerprint = digest([self.name, self.url])
        return {**told, "fingerprint": fingerprint, "per_request": self.per_request, "logprobs": self.logprobs}

    def collect(
        self,
        questions: Sequence[Question],
        prompts: Sequence[Prompt],
        config: SamplingConfig,
        folder: str | Path,
        label: str,
        chunk_size: int = 16,
        progress: bool = True,
    ) -> list[Record]:
        """`records.collect` behind a server: token ids are empty, and log-probabilities NaN if not given."""
        condition = json.loads(json.dumps({"label": label, **self.describe(), **asdict(config)}))
        return resume(
            questions,
            prompts,
            condition,
            folder,
            label,
            lambda chunk: self.draw(chunk, config),
            lambda prompt, question: (),
            chunk_size,
            progress,
        )

    def draw(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[list[Completion]]:
        """`config.n_samples` completions per prompt, merged by their text, the most frequent first.

        Raises
        ------
        SamplingError : a server that cannot be reached, refuses, or gives fewer draws than asked for.
        ModelError : no such model, or a key that is not accepted.
        """
        with self._client() as client:
            pool = ThreadPoolExecutor(self.workers)
            try:
                futures = [pool.submit(self._draw_one, client, prompt, config) for prompt in prompts]
                return [future.result() for future in futures]
            finally:
                pool.shutdown(cancel_futures=True)

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "")

    def _client(self):
        try:
            import openai
        except ImportError as error:
            raise ModelError("an endpoint needs the package openai: pip install 'calib-utils[endpoint]'") from error
        # A local server wants no key, the client some text.
        return openai.OpenAI(
            api_key=self._key() or "none", base_url=self.url, max_retries=self.retries, timeout=self.timeout
        )

    def _draw_one(self, client, prompt: Prompt, config: SamplingConfig) -> list[Completion]:
        drawn: list[_Draw] = []
        wanted = config.n_samples if config.temperature > 0 else 1
        while len(drawn) < wanted:
            n = min(self.per_request, wanted - len(drawn))
            found = self._request(client, prompt, config, n, len(drawn))
            if len(found) != n:
                remedy = "use per_request=1 (--per-request 1), which asks for one at a time"
                raise SamplingError(
                    f"{self.url} was asked for {n} draws in a request and gave {len(found)}; "
                    f"{remedy if n > 1 else 'is it a server of this protocol?'}"
                )
            drawn += found
        same = Counter((one.text, one.finished, one.tokens) for one in drawn)  # as the sampler here tells draws apart
        logprobs = {(one.text, one.finished, one.tokens): one.logprob for one in reversed(drawn)}
        scale = config.n_samples // wanted
        merged = [Completion(one[0], (), count * scale, logprobs[one], one[1]) for one, count in same.items()]
        return sorted(merged, key=lambda one: (-one.count, one.text, one.logprob))

    def _request(self, client, prompt: Prompt, config: SamplingConfig, n: int, before: int):
        """`n` draws; `before` were made already, so that seeds differ."""
        import openai

        text = prompt.shared + prompt.own
        seed = hashlib.blake2b(json.dumps([config.seed, before, text]).encode(), digest_size=4).digest()
        fields = {
            "model": self.name,
            "n": n,
            "temperature": config.temperature,
            "top_p": 1.0,
            "stop": list(config.stop) or None,
            "seed": int.from_bytes(seed, "big") >> 1,
            "extra_body": dict(self.extra) or None,
        }
        if "max_completion_tokens" not in self.extra:
            fields["max_tokens"] = config.max_new_tokens
        try:
            if self.chat:
                if self.logprobs:
                    fields["logprobs"] = True
                turns = json.loads(text) if prompt.chat else [{"role": "user", "content": text}]
                answer = client.chat.completions.create(messages=turns, **fields)
            else:
                if self.logprobs:
                    fields["logprobs"] = 1
                answer = client.completions.create(prompt=text, **fields)
        except openai.OpenAIError as error:
            failure = self._failure(error)
        else:
            return self._read(answer, config)
        raise failure  # outside of the handler: the client's error carries the request, and the request the key

    def _read(self, answer, config: SamplingConfig) -> list[_Draw]:
        found = []
        for choice in getattr(answer, "choices", None) or []:
            text = (choice.message.content if self.chat else choice.text) or ""
            stops = [at for at in (text.find(one) for one in config.stop) if at >= 0]
            finished = choice.finish_reason != "length" or bool(stops)
            given = self._hidden(text[: min(stops, default=None)])
            found.append(_Draw(given, finished, *_told(choice.logprobs, self.chat)))
        return found

    def _hidden(self, text: str) -> str:
        """A text without the key, should a server send it back."""
        key = self._key()
        return text.replace(key, "***") if key else text

    def _failure(self, error: Exception) -> SamplingError | ModelError:
        """What to tell about a request that failed in the end; never the key."""
        import openai

        said = self._hidden(str(getattr(error, "message", error)))[:400]
        where = f"{self.name!r} at {self.url}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ModelError(f"{where}: the key in ${self.key_variable} is not accepted")
        if isinstance(error, openai.NotFoundError):
            other = "--completions" if self.chat else "no --completions"
            return ModelError(f"{where} was not found ({said}); check the model's name and the URL, or try {other}")
        if isinstance(error, openai.RateLimitError):
            return SamplingError(
                f"{where} refuses after {self.retries} retries, too many requests ({said}); use fewer workers, or "
                "start again later: finished chunks are kept"
            )
        if isinstance(error, openai.APIConnectionError):
            return SamplingError(
                f"{where} cannot be reached ({said}) after {self.retries} retries; does the server run? Finished "
                "chunks are kept"
            )
        hint = "; if it knows no log-probabilities, use logprobs=False (--no-logprobs)" if self.logprobs else ""
        return SamplingError(f"{where} failed: {said}{hint}. Finished chunks are kept")


class _Draw(NamedTuple):
    text: str
    finished: bool
    tokens: tuple[str, ...]
    logprob: float


def _told(given, chat: bool) -> tuple[tuple[str, ...], float]:
    """A draw's tokens and the sum of their log-probabilities; none and NaN where the server gave none."""
    values = getattr(given, "content" if chat else "token_logprobs", None)
    tokens = [one.token for one in values or ()] if chat else getattr(given, "tokens", None)
    values = [one.logprob for one in values or ()] if chat else values
    if not values or any(value is None for value in values):
        return (), math.nan
    return tuple(map(str, tokens or ())), float(sum(values))
