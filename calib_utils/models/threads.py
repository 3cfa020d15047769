"""Threads: how many a process computes with, from the cores that it may use and those that others leave idle.

On a machine that others use too, more threads than idle cores make every product wait for the slowest of them, which
costs far more than the core that is missing. Needs no torch: asked when a kernel starts, and when a model is loaded.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

VARIABLE = "OMP_NUM_THREADS"  # what a user sets to choose; torch reads it too
_LOOK = 0.5  # seconds that the load is watched for


class Choice(NamedTuple):
    """How many threads, and what decided it, in words."""

    threads: int
    because: str


def cores(root: Path = Path("/")) -> int:
    """Physical cores that this process may use: those of its affinity, within the limits of its control groups."""
    return max(1, math.floor(min(_physical(root), _quota(root))))


def choose(jobs: int = 1, root: Path = Path("/")) -> Choice:
    """Threads of a process that is about to compute, `jobs` of which are to run at once.

    `OMP_NUM_THREADS`, if that is set. Otherwise a share of the cores; of one job no more than are idle, at least one.
    """
    given = os.environ.get(VARIABLE, "").partition(",")[0].strip()
    if given.isdigit() and int(given):
        return Choice(int(given), VARIABLE)
    most = cores(root)
    if jobs > 1:  # what is busy is busy with the others of them
        return Choice(max(1, most // jobs), f"{most} cores for {jobs} notebooks")
    free = _idle(root)
    if free is None or free + 0.5 >= most:
        return Choice(most, "every core that it may use")
    return Choice(max(1, int(free + 0.5)), f"{free:.1f} cores are idle of {most} that it may use")


@functools.cache
def settle() -> None:
    """Let torch compute with no more threads than `choose` gives; the first call in a process counts."""
    import torch

    if VARIABLE not in os.environ:  # with it torch has that number already, or the one that a program has set since
        torch.set_num_threads(min(torch.get_num_threads(), choose().threads))


def _allowed() -> set[int]:
    """The processors that the system runs this process on; {} where it does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _physical(root: Path) -> int:
    allowed = _allowed()
    about = root / "sys" / "devices" / "system" / "cpu"
    siblings = {_read(about / f"cpu{one}" / "topology" / "thread_siblings_list") or str(one) for one in allowed}
    return len(siblings) or os.cpu_count() or 1


def _quota(root: Path) -> float:
    """Cores' worth of time that the control groups (version 2 or 1) allow; infinite without a limit."""
    found, groups = [math.inf], root / "sys" / "fs" / "cgroup"
    for line in (_read(root / "proc" / "self" / "cgroup") or "0::/").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        base = groups / "cpu" if kinds else groups
        inner = base / path.lstrip("/")
        for folder in (inner, *inner.parents):  # the limit of any group around it counts
            if folder == base.parent:
                break
            one = _read(folder / "cpu.max") or " ".join(
                _read(folder / f"cpu.cfs_{part}_us") or "" for part in ("quota", "period")
            )
            if limit := re.fullmatch(r"(\d+) (\d+)", one):  # "max 100000" and "-1 100000" are none
                found.append(int(limit[1]) / int(limit[2]))
    return min(found)


def _idle(root: Path) -> float | None:
    """Physical cores of the affinity that were idle while this process slept; None where the system does not tell."""
    first = _ticks(root)
    time.sleep(_LOOK)
    passed = [after - before for before, after in zip(first, _ticks(root), strict=True)]
    return _physical(root) * passed[0] / passed[1] if any(passed) else None


def _ticks(root: Path) -> tuple[int, int]:
    """(idle, all) ticks of the allowed processors since the system started; zeros where it does not tell."""
    idle = total = 0
    allowed = {f"cpu{one}" for one in _allowed()}
    for line in (_read(root / "proc" / "stat") or "").splitlines():
        name, *numbers = line.split()
        if name in allowed:
            of_kind = list(map(int, numbers[:8]))  # guests are counted in the first already
            idle, total = idle + sum(of_kind[3:5]), total + sum(of_kind)
    return idle, total


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
