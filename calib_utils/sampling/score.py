"""Scoring: the probabilities of given continuations, each token of which is computed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from calib_utils.models import LanguageModel, encode, needs_weights
from calib_utils.sampling.cache import TreeCache
from calib_utils.sampling.draw import SLICE, NotFiniteError, check_finite
from calib_utils.sampling.memory import fitting
from calib_utils.sampling.prefix_tree import Node, admit, attention_grid
from calib_utils.sampling.sampler import not_finite
from calib_utils.sampling.tokens import common_length, split
from calib_utils.types import Prompt


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
    SamplingError : as `sampling.sample`.
    """
    needs_weights(lm, "the probability of a given option")
    _ = lm.model  # load the weights first: if they do not fit, fewer rows cannot help
    if len(prompts) != len(options):
        raise ValueError(f"{len(prompts)} prompts but {len(options)} lists of options")
    paths, scored, names = {}, {}, []
    for i, (prompt, texts) in enumerate(zip(prompts, options, strict=True)):
        if len(set(texts)) < max(len(texts), 1) or not all(text.strip() for text in texts):
            raise ValueError(f"options {list(texts)} of {prompt.own!r} are none, empty or repeated")
        before = encode(lm.tokenizer, prompt.shared + prompt.own, prompt.chat)
        whole = [split(lm.tokenizer, replace(prompt, own=prompt.own + text + ending)) for text in texts]
        common = min(common_length(before, [*shared, *own]) for shared, own in whole)
        for j, (shared, own) in enumerate(whole):
            names.append((i, j))
            paths.setdefault(shared, {})[len(names) - 1] = own
            scored[len(names) - 1] = len(shared) + len(own) - common
    result = [np.empty(len(texts)) for texts in options]
    for shared, own in paths.items():

        def score(rows: int, shared=shared, own=own) -> None:
            for at, logprob in _path_logprobs(lm, rows, shared, own, scored).items():
                result[names[at][0]][names[at][1]] = logprob

        max_rows = fitting(max_rows, score)
    return result


def _path_logprobs(
    lm: LanguageModel,
    max_rows: int,
    shared: tuple[int, ...],
    own: Mapping[int, tuple[int, ...]],
    scored: Mapping[int, int],
) -> dict[int, float]:
    """Log-probability of the last `scored[i]` tokens of every path `own[i]`, given what stands before them."""
    cache, result = TreeCache(lm, shared, own.values(), max_new_tokens=1), {}
    waiting = deque(Node(i) for i in own)
    nothing = torch.zeros(0, len(shared), dtype=torch.bool, device=lm.device)
    while waiting:
        joining = admit(waiting, 0, own, len(shared), max_rows)
        ids = joining.ids
        where = torch.tensor(joining.depths, dtype=torch.long, device=lm.device)
        wanted: dict[tuple[int, int], float] = {}  # (column, next token) -> log-probability
        chains = {}
        for node, end in zip(joining.nodes, joining.ends, strict=True):
            columns = joining.above[end][-scored[node.prompt] - 1 :]
            chains[node.prompt] = [(at, ids[after]) for at, after in pairwise(columns)]
            wanted.update(dict.fromkeys(chains[node.prompt]))
        keep = sorted({at for at, _ in wanted})
        logits = cache.forward(ids, where, attention_grid(nothing, 0, joining.above, len(shared)), keep)
        row = {at: i for i, at in enumerate(keep)}
        for start in range(0, len(keep), SLICE):
            logprobs = logits[start : start + SLICE].float().log_softmax(dim=1)
            try:
                check_finite(logprobs, start)
            except NotFiniteError as error:
                raise not_finite(lm, [ids[keep[error.row]]]) from error
            inside = [pair for pair in wanted if start <= row[pair[0]] < start + SLICE]
            values = logprobs[[row[at] - start for at, _ in inside], [token for _, token in inside]]
            wanted.update(zip(inside, values.tolist(), strict=True))
        result.update({i: sum(wanted[pair] for pair in chain) for i, chain in chains.items()})
        cache.forget(nothing.new_zeros(0, len(cache.key_positions)))
    return result
