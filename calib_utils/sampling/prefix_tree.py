"""The prefix tree: which prefixes are alive, and how those that join are packed so that none is computed twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch

_SPREAD = 24  # rows that the draws of one prompt are expected to spread into


@dataclass(frozen=True)
class Node:
    """A live prefix: prompt index, drawn tokens, how many draws share it, log-probability, sum of c_t."""

    prompt: int
    tokens: tuple[int, ...] = ()
    count: int = 1
    logprob: float = 0.0
    confidence: float = 0.0


@dataclass(frozen=True)
class Packed:
    """Paths of nodes packed as one trie, a row per distinct token.

    Attributes
    ----------
    nodes : those that join.
    ids, depths : per packed token its id and its position.
    above : per packed token the columns of the trie up to itself.
    ends : the index of every node's last token.
    """

    nodes: list[Node]
    ids: list[int]
    depths: list[int]
    above: list[list[int]]
    ends: list[int]


def admit(
    waiting: deque[Node], n_live: int, own: Mapping[int, tuple[int, ...]], n_shared: int, max_rows: int
) -> Packed:
    """Take nodes from `waiting` while rows are free, and pack their paths as one trie.

    A prompt is expected to spread into up to 24 rows, and the packed tokens stay within `max_rows` unless nothing
    else is running.

    Parameters
    ----------
    n_live : rows that are taken already.
    own : token ids of every prompt after the `n_shared` ones that all share.
    """
    column: dict[tuple[int, ...], int] = {}
    packed = Packed([], [], [], [], [])
    rows = n_live
    while waiting:
        node = waiting[0]
        path = (*own[node.prompt], *node.tokens)
        rows += min(node.count, _SPREAD)
        full = rows > max_rows or len(packed.ids) + len(path) > max_rows
        if full and (n_live or packed.nodes):
            break
        packed.nodes.append(waiting.popleft())
        columns: list[int] = []
        for depth in range(1, len(path) + 1):
            key = path[:depth]
            if key not in column:
                column[key] = len(packed.ids)
                packed.ids.append(path[depth - 1])
                packed.depths.append(n_shared + depth - 1)
                packed.above.append([*columns, column[key]])
            columns.append(column[key])
        packed.ends.append(column[path])
    return packed


def attention_grid(seen: torch.Tensor, n_live: int, above: list[list[int]], n_shared: int) -> torch.Tensor:
    """What the new columns (one per live end, then the packed paths) attend to, themselves included.

    `seen` (n_live, old columns) says that live end i comes after column k. Returns booleans (new, old + new).
    """
    n_old, n_new = seen.shape[1], len(above)
    grid = torch.zeros(n_live + n_new, n_old + n_live + n_new, dtype=torch.bool)
    grid[:n_live, n_old : n_old + n_live] = torch.eye(n_live, dtype=torch.bool)
    grid[n_live:, :n_shared] = True
    for row, columns in enumerate(above):
        grid[n_live + row, torch.tensor(columns) + n_old + n_live] = True
    grid = grid.to(seen.device)
    grid[:n_live, :n_old] = seen
    return grid
