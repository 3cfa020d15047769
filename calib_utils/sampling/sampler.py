"""Sampling: M exact draws per prompt, computed once per distinct prefix."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import torch

from calib_utils.errors import SamplingError
from calib_utils.models import LanguageModel
from calib_utils.sampling import vllm
from calib_utils.sampling.cache import TreeCache
from calib_utils.sampling.draw import NotFiniteError, split_counts, uniforms
from calib_utils.sampling.memory import fitting
from calib_utils.sampling.prefix_tree import Node, admit, attention_grid
from calib_utils.sampling.tokens import cut, split
from calib_utils.types import Completion, Prompt, SamplingConfig


def sample(
    lm: LanguageModel, prompts: Sequence[Prompt], config: SamplingConfig, max_rows: int = 128
) -> list[list[Completion]]:
    """Draw `config.n_samples` completions per prompt from the model's exact distribution.

    A model loaded with `backend="vllm"` is drawn from by vLLM (`sampling.vllm`), with the same result; what follows
    is how it is done here.

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
        return vllm.sample(lm, prompts, config)
    _ = lm.model  # load the weights first: if they do not fit, fewer rows cannot help
    encoded = [split(lm.tokenizer, prompt) for prompt in prompts]
    done: list[list[Completion]] = [[] for _ in prompts]
    for shared in dict.fromkeys(shared for shared, _ in encoded):  # one tree per few-shot prefix
        own = {i: ids for i, (prefix, ids) in enumerate(encoded) if prefix == shared}

        def grow(rows: int, shared=shared, own=own) -> None:
            for i in own:
                done[i].clear()
            _grow(lm, config, rows, shared, own, done)

        max_rows = fitting(max_rows, grow)
    for completions in done:
        completions.sort(key=lambda c: (-c.count, -c.logprob, c.token_ids))
    return done


def _grow(
    lm: LanguageModel,
    config: SamplingConfig,
    max_rows: int,
    shared: tuple[int, ...],
    own: Mapping[int, tuple[int, ...]],
    done: list[list[Completion]],
) -> None:
    """Draw until every draw of every prompt in `own` has ended, filling `done`."""
    cache = TreeCache(lm, shared, own.values(), config.max_new_tokens)
    waiting = deque(Node(i, count=config.n_samples) for i in own)
    live: list[Node] = []
    seen = torch.zeros(0, len(shared), dtype=torch.bool, device=lm.device)
    positions = torch.zeros(0, dtype=torch.long, device=lm.device)
    while live or waiting:
        joining = admit(waiting, len(live), own, len(shared), max_rows)
        seen = cache.forget(seen)
        n_live = len(live)
        grid = attention_grid(seen, n_live, joining.above, len(shared))
        where = torch.cat([positions, torch.tensor(joining.depths, dtype=torch.long, device=lm.device)])
        keep = [*range(n_live), *(n_live + end for end in joining.ends)]
        logits = cache.forward([node.tokens[-1] for node in live] + joining.ids, where, grid, keep)
        ends_at = torch.tensor(keep, device=lm.device)
        live, parents, children = live + joining.nodes, [], []
        for row, token, count, logprob, top in _draw(lm, config, logits, live, shared, own):
            parent = live[row]
            tokens = (*parent.tokens, token)
            node = Node(parent.prompt, tokens, count, parent.logprob + logprob, parent.confidence + top)
            ended = _ended(lm, config, node)
            if ended is None:
                parents.append(row)
                children.append(node)
            else:
                done[node.prompt].append(ended)
        waiting.extendleft(reversed(children[max_rows:]))  # too many: they join again later
        live = children[:max_rows]
        rows = ends_at[torch.tensor(parents[:max_rows], dtype=torch.long, device=lm.device)]
        seen, positions = grid[rows], where[rows] + 1


def _draw(lm, config: SamplingConfig, logits: torch.Tensor, live: Sequence[Node], shared, own):
    """`draw.split_counts` of the live nodes; the uniforms are a function of seed, prompt and prefix."""

    def of_row(row: int):
        node = live[row]
        return uniforms(config.seed, (*shared, *own[node.prompt]), node.tokens, node.count)

    try:
        yield from split_counts(logits, [node.count for node in live], config.temperature, of_row)
    except NotFiniteError as error:
        raise not_finite(lm, live[error.row].tokens) from error


def not_finite(lm: LanguageModel, after: Sequence[int]) -> SamplingError:
    """The error for logits that are NaN or infinite after these tokens."""
    return SamplingError(
        f"the logits of {lm.name!r} are NaN or infinite after {cut(lm.tokenizer, after, ())[0]!r}; "
        f"load it with dtype='float32' (now {lm.dtype}) or check its weights"
    )


def _ended(lm: LanguageModel, config: SamplingConfig, node: Node) -> Completion | None:
    text, stopped = cut(lm.tokenizer, node.tokens, config.stop)
    finished = stopped or node.tokens[-1] in lm.eos_ids
    if not finished and len(node.tokens) < config.max_new_tokens:
        return None
    mean = node.confidence / len(node.tokens)
    return Completion(text, node.tokens, node.count, node.logprob, finished, mean)
