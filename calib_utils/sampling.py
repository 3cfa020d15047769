"""Sampling: M exact draws per prompt, computed once per distinct prefix."""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import DynamicCache

from calib_utils.models import LanguageModel, encode, needs_weights

log = logging.getLogger(__name__)

_BLOCK = 512  # vocabulary block of the two-level inverse CDF
_SLICE = 8  # rows whose probabilities are held in float32 at once (8 rows of 262,144 stay near the cache)


class SamplingError(RuntimeError):
    """The model or the prompt cannot be sampled from; the message names the value and the remedy."""


@dataclass(frozen=True)
class Prompt:
    """Text to complete. `shared` (few-shot examples) is computed once for all prompts that begin with it."""

    shared: str
    own: str
    chat: bool = False  # the text was written by a chat template, special tokens included

    @property
    def blank(self) -> str:
        """What stands between the prompt and an answer: a blank in plain text, nothing after a chat template."""
        return "" if self.chat else " "


@dataclass(frozen=True)
class SamplingConfig:
    """How to draw completions.

    Attributes
    ----------
    n_samples : M >= 1, draws per prompt.
    temperature : T >= 0; draws come from softmax(logits / T) over the whole vocabulary, T = 0 is greedy.
    max_new_tokens : a completion is cut there and marked unfinished.
    stop : a completion ends where one of these strings appears; the string is not part of its text.
    seed : draws are a function of seed and prompt only.
    """

    n_samples: int = 50
    temperature: float = 1.0
    max_new_tokens: int = 16
    stop: tuple[str, ...] = ("\n",)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples is {self.n_samples}; it must be at least 1")
        if not (self.temperature >= 0 and np.isfinite(self.temperature)):
            raise ValueError(f"temperature is {self.temperature}; it must be a finite number, 0 (greedy) or more")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if any(not text for text in self.stop):
            raise ValueError("stop contains an empty string; remove it")


@dataclass(frozen=True)
class Completion:
    """One distinct completion and how often it was drawn.

    Attributes
    ----------
    text : the decoded tokens up to the stop string or end token.
    token_ids : what was drawn, with the token that ended it.
    count : how many of the M draws it is.
    logprob : natural logarithm of its probability under the sampled distribution; for T = 0 (a point mass)
        its probability at T = 1.
    finished : False when it was cut at `max_new_tokens`.
    confidence : mean over its tokens of c_t = max_v p_t(v), the token confidence (NaN if it was not measured).
    """

    text: str
    token_ids: tuple[int, ...]
    count: int
    logprob: float
    finished: bool
    confidence: float = math.nan


@dataclass(frozen=True)
class _Node:
    """A live prefix: prompt index, drawn tokens, how many draws share it, log-probability, sum of c_t."""

    prompt: int
    tokens: tuple[int, ...]
    count: int
    logprob: float
    confidence: float


def sample(
    lm: LanguageModel, prompts: Sequence[Prompt], config: SamplingConfig, max_rows: int = 128
) -> list[list[Completion]]:
    """Draw `config.n_samples` completions per prompt from the model's exact distribution.

    A model loaded with `backend="vllm"` is drawn from by vLLM (`vllm_backend`), with the same result; what follows is
    how it is done here.

    Every distinct prefix is forwarded once and its count is split multinomially over the next token, which is
    the distribution of M independent draws; the cost grows with the number of distinct completions, not M.
    All live prefixes are one packed sequence with a tree attention mask, so that keys and values are stored
    once per distinct token; prompts join as others end, in order.

    Parameters
    ----------
    lm : model and tokenizer.
    prompts : texts to complete.
    config : draws, temperature, stop strings, length, seed.
    max_rows : most prefixes forwarded together; bounds the memory whatever M is, and is halved where that is not
        enough. At 128 rows a vocabulary of
        262,144 takes 0.07 GB for the logits, and keys and values at most `max_rows` x tokens of a path. The
        draws do not depend on it, nor on the other prompts, up to the rounding of the model's own arithmetic.

    Returns
    -------
    For each prompt its distinct completions, most frequent first; their counts sum to M.

    Raises
    ------
    SamplingError : NaN or infinite logits, a prompt longer than the context, an architecture whose positions
        cannot be given.
    ValueError : an empty prompt, `max_rows` below 1.
    """
    if max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; it must be at least 1")
    if lm.backend != "transformers":
        from calib_utils import vllm_backend

        return vllm_backend.sample(lm, prompts, config)
    _ = lm.model  # weights that do not fit are no matter of rows
    encoded = [_split(lm.tokenizer, prompt) for prompt in prompts]
    done: list[list[Completion]] = [[] for _ in prompts]
    for shared in dict.fromkeys(shared for shared, _ in encoded):  # one tree per few-shot prefix
        own = {i: ids for i, (prefix, ids) in enumerate(encoded) if prefix == shared}

        def grow(rows: int, shared=shared, own=own) -> None:
            for i in own:
                done[i].clear()
            _Tree(lm, config, rows, shared, own).grow(done)

        max_rows = _fitting(max_rows, grow)
    for completions in done:
        completions.sort(key=lambda c: (-c.count, -c.logprob, c.token_ids))
    return done


def option_logprobs(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    options: Sequence[Sequence[str]],
    ending: str = "",
    max_rows: int = 128,
) -> list[np.ndarray]:
    """log p(option | prompt) of every option of every prompt: the sum over the option's tokens.

    Tokens that options of one prompt have in common are computed once, as is `shared` of all prompts.

    Parameters
    ----------
    options : per prompt the texts that may follow it, with their leading blank if the prompt wants one: full
        answers or labels such as `" A"`.
    ending : text that ends an answer (`prompts.ENDING`, or the tokenizer's end token), scored with every option:
        without it an option that begins another one ("Niger", "Nigeria") can never be less probable than it.
    max_rows : most tokens forwarded together.

    Returns
    -------
    One array (number of options,) of natural logarithms per prompt.

    Raises
    ------
    ValueError : an option that is empty, or stands twice.
    SamplingError : as `sample`.
    """
    needs_weights(lm, "the probability of a given option")
    _ = lm.model  # as in `sample`
    if len(prompts) != len(options):
        raise ValueError(f"{len(prompts)} prompts but {len(options)} lists of options")
    paths, scored, names = {}, {}, []
    for i, (prompt, texts) in enumerate(zip(prompts, options, strict=True)):
        if len(set(texts)) < max(len(texts), 1) or not all(text.strip() for text in texts):
            raise ValueError(f"options {list(texts)} of {prompt.own!r} are none, empty or repeated")
        before = encode(lm.tokenizer, prompt.shared + prompt.own, prompt.chat)
        whole = [_split(lm.tokenizer, replace(prompt, own=prompt.own + text + ending)) for text in texts]
        common = min(_agree(before, [*shared, *own]) for shared, own in whole)
        for j, (shared, own) in enumerate(whole):
            names.append((i, j))
            paths.setdefault(shared, {})[len(names) - 1] = own
            scored[len(names) - 1] = len(shared) + len(own) - common
    result = [np.empty(len(texts)) for texts in options]
    for shared, own in paths.items():

        def rate(rows: int, shared=shared, own=own) -> None:
            tree = _Tree(lm, SamplingConfig(1, max_new_tokens=1), rows, shared, own)
            for at, logprob in tree.path_logprobs(scored).items():
                result[names[at][0]][names[at][1]] = logprob

        max_rows = _fitting(max_rows, rate)
    return result


def _fitting(max_rows: int, attempt: Callable[[int], None]) -> int:
    """Call `attempt` with `max_rows`, halved until it fits into the memory of the device; returns what fitted."""
    while True:
        try:
            attempt(max_rows)
            return max_rows
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if max_rows == 1:
                raise SamplingError(
                    "one prefix at a time does not fit into memory: use a smaller model, dtype or number of shots"
                ) from error
        clear_device_cache(garbage_collection=True)  # out of the handler, which holds on to what did not fit
        log.warning("out of memory with max_rows = %d; going on with %d", max_rows, max_rows // 2)
        max_rows //= 2


def _agree(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning of two sequences."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def cut(tokenizer, token_ids: Sequence[int], stop: Sequence[str]) -> tuple[str, bool]:
    """Text of drawn tokens up to the first stop string, and whether there is one."""
    text = tokenizer.decode(token_ids, skip_special_tokens=True)
    found = [at for at in (text.find(one) for one in stop) if at >= 0]
    return text[: min(found, default=None)], bool(found)


def _split(tokenizer, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt as (shared, own): the whole text is tokenized, and cut where it leaves `shared`."""
    whole = encode(tokenizer, prompt.shared + prompt.own, prompt.chat)
    shared = encode(tokenizer, prompt.shared, prompt.chat) if prompt.shared else []
    cut = _agree(shared, whole[:-1])
    return tuple(whole[:cut]), tuple(whole[cut:])


class _Tree:
    """All prompts that share a prefix, and the live ends of what has been drawn after them.

    The cache holds one column per token: first the shared prefix, then whatever live ends have above them.
    `seen[i, k]` says that live end i comes after column k.
    """

    def __init__(self, lm, config, max_rows, shared: tuple[int, ...], own: dict[int, tuple[int, ...]]) -> None:
        if "position_ids" not in inspect.signature(lm.model.forward).parameters:
            raise SamplingError(
                f"{type(lm.model).__name__} takes no position_ids, which merged-prefix sampling needs; "
                "use a model with rotary or learned positions"
            )
        text_config = lm.model.config.get_text_config()
        self.window = getattr(text_config, "sliding_window", None)
        self.layer_types = set(getattr(text_config, "layer_types", None) or ())
        longest = len(shared) + max(map(len, own.values())) + config.max_new_tokens
        context = getattr(text_config, "max_position_embeddings", None)
        if context is not None and longest > context:
            raise SamplingError(
                f"prompt and completion need {longest} tokens, the context of {lm.name!r} holds {context}; "
                "use fewer shots or a smaller max_new_tokens"
            )
        self.lm, self.config, self.max_rows, self.shared, self.own = lm, config, max_rows, shared, own
        self.cache = DynamicCache()
        self.key_positions = torch.arange(len(shared), device=lm.device)
        if shared:
            causal = torch.ones(len(shared), len(shared), dtype=torch.bool, device=lm.device).tril()
            self._forward(list(shared), self.key_positions, causal, [len(shared) - 1])

    def grow(self, done: list[list[Completion]]) -> None:
        """Draw until every draw of every prompt has ended, filling `done`."""
        device = self.lm.device
        waiting = deque(_Node(i, (), self.config.n_samples, 0.0, 0.0) for i in self.own)
        live: list[_Node] = []
        seen = torch.zeros(0, len(self.shared), dtype=torch.bool, device=device)
        positions = torch.zeros(0, dtype=torch.long, device=device)
        while live or waiting:
            joining, ids, depths, above, ends = self._admit(waiting, len(live))
            seen = self._forget(seen)
            n_live = len(live)
            grid = self._grid(seen, n_live, above)
            where = torch.cat([positions, torch.tensor(depths, dtype=torch.long, device=device)])
            self.key_positions = torch.cat([self.key_positions, where])
            keep = [*range(n_live), *(n_live + end for end in ends)]
            logits = self._forward([node.tokens[-1] for node in live] + ids, where, grid, keep)
            ends_at = torch.tensor(keep, device=device)
            live, parents, children = live + joining, [], []
            for row, token, count, logprob, top in self._draw(logits, live):
                parent = live[row]
                tokens = (*parent.tokens, token)
                node = _Node(parent.prompt, tokens, count, parent.logprob + logprob, parent.confidence + top)
                ended = self._ended(node)
                if ended is None:
                    parents.append(row)
                    children.append(node)
                else:
                    done[node.prompt].append(ended)
            waiting.extendleft(reversed(children[self.max_rows :]))  # too many: they join again later
            live = children[: self.max_rows]
            rows = ends_at[torch.tensor(parents[: self.max_rows], dtype=torch.long, device=device)]
            seen, positions = grid[rows], where[rows] + 1

    def path_logprobs(self, scored: dict[int, int]) -> dict[int, float]:
        """Log-probability of the last `scored[i]` tokens of every path `own[i]`, given what stands before them."""
        device, result = self.lm.device, {}
        waiting = deque(_Node(i, (), 1, 0.0, 0.0) for i in self.own)
        nothing = torch.zeros(0, len(self.shared), dtype=torch.bool, device=device)
        while waiting:
            joining, ids, depths, above, ends = self._admit(waiting, 0)
            where = torch.tensor(depths, dtype=torch.long, device=device)
            self.key_positions = torch.cat([self.key_positions, where])
            wanted: dict[tuple[int, int], float] = {}  # (column, next token) -> log-probability
            chains = {}
            for node, end in zip(joining, ends, strict=True):
                columns = above[end][-scored[node.prompt] - 1 :]
                chains[node.prompt] = [(at, ids[after]) for at, after in pairwise(columns)]
                wanted.update(dict.fromkeys(chains[node.prompt]))
            keep = sorted({at for at, _ in wanted})
            logits = self._forward(ids, where, self._grid(nothing, 0, above), keep)
            row = {at: i for i, at in enumerate(keep)}
            for start in range(0, len(keep), _SLICE):
                logprobs = logits[start : start + _SLICE].float().log_softmax(dim=1)
                self._check_finite(logprobs, [[ids[at]] for at in keep[start : start + _SLICE]])
                inside = [pair for pair in wanted if start <= row[pair[0]] < start + _SLICE]
                values = logprobs[[row[at] - start for at, _ in inside], [token for _, token in inside]]
                wanted.update(zip(inside, values.tolist(), strict=True))
            result.update({i: sum(wanted[pair] for pair in chain) for i, chain in chains.items()})
            self._forget(nothing.new_zeros(0, len(self.key_positions)))
        return result

    def _grid(self, seen: torch.Tensor, n_live: int, above: list[list[int]]) -> torch.Tensor:
        """What the new columns (one per live end, then the packed paths) attend to, themselves included."""
        n_old, n_new = seen.shape[1], len(above)
        grid = torch.zeros(n_live + n_new, n_old + n_live + n_new, dtype=torch.bool)
        grid[:n_live, n_old : n_old + n_live] = torch.eye(n_live, dtype=torch.bool)
        grid[n_live:, : len(self.shared)] = True
        for row, columns in enumerate(above):
            grid[n_live + row, torch.tensor(columns) + n_old + n_live] = True
        grid = grid.to(self.lm.device)
        grid[:n_live, :n_old] = seen
        return grid

    def _admit(self, waiting: deque, n_live: int):
        """Take nodes from `waiting` while rows are free, and pack their paths as one trie.

        Returns the nodes, then per packed token its id, position and the columns of the trie up to itself, and
        the index of every node's last token. A prompt is expected to spread into up to 24 rows, and the packed
        tokens stay within `max_rows` unless nothing else is running.
        """
        column: dict[tuple[int, ...], int] = {}
        joining, ids, depths, above, ends = [], [], [], [], []
        rows = n_live
        while waiting:
            node = waiting[0]
            path = (*self.own[node.prompt], *node.tokens)
            rows += min(node.count, 24)
            full = rows > self.max_rows or len(ids) + len(path) > self.max_rows
            if full and (n_live or joining):
                break
            joining.append(waiting.popleft())
            columns: list[int] = []
            for depth in range(1, len(path) + 1):
                key = path[:depth]
                if key not in column:
                    column[key] = len(ids)
                    ids.append(path[depth - 1])
                    depths.append(len(self.shared) + depth - 1)
                    above.append([*columns, column[key]])
                columns.append(column[key])
            ends.append(column[path])
        return joining, ids, depths, above, ends

    def _forget(self, seen: torch.Tensor) -> torch.Tensor:
        """Drop the cached columns that no live end comes after; returns `seen` without them."""
        used = seen.any(dim=0)
        used[: len(self.shared)] = True
        self.key_positions = self.key_positions[used]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, used], layer.values[:, :, used]
        return seen[:, used]

    @torch.inference_mode()
    def _forward(self, ids: list[int], positions, seen, keep: list[int]) -> torch.Tensor:
        """Logits (len(keep), V) after packed tokens `ids`; row i attends to the columns where `seen[i]`."""
        device, dtype = self.lm.device, self.lm.model.dtype
        full = torch.zeros(seen.shape, dtype=dtype, device=device)
        full.masked_fill_(~seen, torch.finfo(dtype).min)
        near = full
        if self.window is not None:
            too_far = positions[:, None] - self.key_positions[None, :] >= self.window
            near = full.masked_fill(too_far, torch.finfo(dtype).min)
        masks = {"full_attention": full[None, None], "sliding_attention": near[None, None]}
        if not self.layer_types <= set(masks):
            raise SamplingError(
                f"{self.lm.name!r} has layers of type {sorted(self.layer_types - set(masks))}; "
                "merged-prefix sampling knows full and sliding attention only"
            )
        mask = masks
        if self.layer_types <= {"full_attention"}:  # a configuration that names no types has one window for all
            mask = masks["full_attention" if self.layer_types else "sliding_attention"]
        output = self.lm.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=positions[None],
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.tensor(keep, device=device),
        )
        return output.logits[0]

    def _draw(self, logits: torch.Tensor, live: list[_Node]) -> Iterator[tuple[int, int, int, float, float]]:
        """Split every count over the vocabulary: (row, token, count, log-probability, max_v p(v)) per distinct token.

        Inverse CDF in two levels: blocks of the vocabulary are summed once per row, and only the blocks that a
        draw falls in are accumulated. The uniforms are a function of seed, prompt and prefix.
        """
        greedy = self.config.temperature == 0
        scale = 1.0 if greedy else 1.0 / self.config.temperature
        n_blocks = -(-logits.shape[1] // _BLOCK)
        buffer = torch.zeros(min(_SLICE, len(live)), n_blocks * _BLOCK, device=logits.device)
        for start in range(0, len(live), _SLICE):
            part = logits[start : start + _SLICE]
            p = buffer[: len(part)]
            head = p[:, : logits.shape[1]]
            head.copy_(part)
            best = head.argmax(dim=1).tolist() if greedy else []
            self._check_finite(head, [node.tokens for node in live[start : start + _SLICE]])
            head.sub_(head.amax(dim=1, keepdim=True)).mul_(scale).exp_()
            blocks = p.view(len(part), n_blocks, _BLOCK)
            cumulative = blocks.sum(dim=2).double().cumsum(dim=1).cpu().numpy()
            totals = cumulative[:, -1]
            if greedy:
                for i, token in enumerate(best):
                    yield start + i, token, live[start + i].count, -float(np.log(totals[i])), 1 / float(totals[i])
                continue
            where, rest = [], []
            for i in range(len(part)):
                target = self._uniforms(live[start + i]) * totals[i]
                block = np.searchsorted(cumulative[i], target, side="right").clip(max=n_blocks - 1)
                where.append(np.stack([np.full_like(block, i), block]))
                rest.append(target - np.where(block > 0, cumulative[i][block - 1], 0.0))
            rows, block = np.concatenate(where, axis=1)
            inside = blocks[torch.from_numpy(rows), torch.from_numpy(block)].double().cpu().numpy()
            within = (inside.cumsum(axis=1) <= np.concatenate(rest)[:, None]).sum(axis=1)
            # Rounding may push a draw past the last possible token of its block: step back to it.
            last = _BLOCK - 1 - (inside[:, ::-1] > 0).argmax(axis=1)
            within = np.minimum(within, last)
            chances = np.log(inside[np.arange(len(within)), within] / totals[rows])
            draws = np.stack([rows, block * _BLOCK + within])
            distinct, first, counts = np.unique(draws, axis=1, return_index=True, return_counts=True)
            for (row, token), at, count in zip(distinct.T, first, counts, strict=True):
                # The largest term of every sum is exp(0), so that the top probability is one over the sum.
                yield start + int(row), int(token), int(count), float(chances[at]), 1 / float(totals[row])

    def _check_finite(self, rows: torch.Tensor, after: Sequence[Sequence[int]]) -> None:
        bad = torch.nonzero(~rows.sum(dim=1).isfinite())  # one NaN or infinity spoils the sum
        if len(bad):
            raise SamplingError(
                f"the logits of {self.lm.name!r} are NaN or infinite after "
                f"{cut(self.lm.tokenizer, after[int(bad[0])], ())[0]!r}; "
                f"load it with dtype='float32' (now {self.lm.dtype}) or check its weights"
            )

    def _uniforms(self, node: _Node) -> np.ndarray:
        path = [self.config.seed, *self.shared, *self.own[node.prompt], -1, *node.tokens]
        digest = hashlib.blake2b(np.array(path, dtype=np.int64).tobytes(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(node.count)

    def _ended(self, node: _Node) -> Completion | None:
        text, stopped = cut(self.lm.tokenizer, node.tokens, self.config.stop)
        finished = stopped or node.tokens[-1] in self.lm.eos_ids
        if not finished and len(node.tokens) < self.config.max_new_tokens:
            return None
        mean = node.confidence / len(node.tokens)
        return Completion(text, node.tokens, node.count, node.logprob, finished, mean)
