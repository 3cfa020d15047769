"""Batch: several notebooks, each in a process of its own, in an order that lets them share what they train."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from calib_utils import home, runner

AFTER = {"04_catto": ("02_",), "05_calibration_aware": ("02_",), "08_claims": ("0",)}  # what goes before, if chosen
_TELL = 30.0  # seconds between two lines about progress
_PATIENCE = 30.0  # seconds that a notebook has to stop in


@dataclass
class Job:
    """One notebook to run: its command, the seconds it is expected to take (None: not known), and its process."""

    notebook: str
    command: list[str]
    expected: float | None = None
    lock: FileLock | None = field(default=None, repr=False)  # of its GPU
    process: subprocess.Popen | None = field(default=None, repr=False)
    began: float = 0.0


def command(notebook: Path, profile: str, overrides: Mapping[str, object], output: Path | None = None) -> list[str]:
    """The command line of the process that runs one notebook, its executed copy going to `output`."""
    given = [word for name, value in overrides.items() for word in ("-p", f"{name}={value!r}")]
    where = ["--output", str(output)] if output else []
    words = ["run", "--here", "--profile", profile, "--only", notebook.stem]
    return [sys.executable, "-m", "calib_utils", *words, *where, *given]


def devices() -> list[str]:
    """The visible GPUs, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names[:count] or [str(i) for i in range(count)]


def pin(gpus: Sequence[str], turn: int) -> tuple[str | None, FileLock | None]:
    """One of several GPUs for a job, and the lock that keeps this user's other runs on this machine from it.

    None where there are not several; a GPU without a lock where all are taken: jobs share them, by turn.
    """
    from calib_utils.models import cache_dir

    for name in gpus if len(gpus) > 1 else ():
        lock = FileLock(cache_dir() / f"{platform.node()}-gpu-{re.sub('[^-a-zA-Z0-9]', '-', name)}.lock")
        with contextlib.suppress(Timeout, OSError):  # a cache that cannot be written holds no locks
            cache_dir().mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            return name, lock
    return (gpus[turn % len(gpus)] if len(gpus) > 1 else None), None


def environment(jobs: int, gpu: str | None = None) -> dict[str, str]:
    """Environment of a process: this home and package, its GPU, if it is to have one of several, and an equal share
    of the cores.
    """
    found = {**os.environ, **home.environment()}
    if jobs > 1:
        found.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    if gpu is not None:
        found["CUDA_VISIBLE_DEVICES"] = gpu
    return found


def ready(waiting: list[Job], unfinished: set[str]) -> Job | None:
    """The first job that waits for nothing which is not finished."""
    for job in waiting:
        before = AFTER.get(job.notebook, ())
        if not any(name != job.notebook and name.startswith(before) for name in unfinished if before):
            return job
    return None


def run(pending: list[Job], jobs: int, gpus: Sequence[str] = (), tell: Callable[[str], None] = print) -> list[str]:
    """Run all jobs, at most `jobs` at once; returns the names of those that failed.

    Of several `gpus` (`devices`) each job gets one, which no other run has if that can be. A failure stops no other
    job: notebooks can do without each other, in more time. When this process is stopped (Ctrl-C, SIGTERM) the running
    ones are stopped too, and KeyboardInterrupt is raised when they have ended.
    """
    waiting, running, failed, told = list(pending), [], [], time.monotonic()
    # SIGINT too: a shell starts what it puts in the background with that ignored.
    before = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        while waiting or running:
            while len(running) < jobs and (job := ready(waiting, {j.notebook for j in (*waiting, *running)})):
                waiting.remove(job)
                gpu, job.lock = pin(gpus, len(running))
                job.process = subprocess.Popen(job.command, env=environment(jobs, gpu), cwd=runner.ROOT)
                job.began = time.monotonic()
                running.append(job)
            time.sleep(0.2)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                if job.lock:
                    job.lock.release()
                failed += [job.notebook] if job.process.returncode else []
                told = 0.0
            if running and time.monotonic() - told > _TELL:
                told = time.monotonic()
                tell(progress(waiting, running, jobs, told))
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            try:
                job.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            if job.lock:
                job.lock.release()
        for one, handler in before.items():
            signal.signal(one, handler)
    return failed


def progress(waiting: list[Job], running: list[Job], jobs: int, now: float) -> str:
    """What runs, for how long of how long, how many wait, and the minutes left in all where that is known."""
    shown = [f"{job.notebook} {_minutes(now - job.began)} of {_minutes(job.expected)}" for job in running]
    left = [max(job.expected - (now - job.began), 0) if job.expected else None for job in running]
    left += [job.expected for job in waiting]
    total = None if None in left else sum(left) / jobs
    return f"{', '.join(shown)}; {len(waiting)} waiting; {_minutes(total)} left"


def _minutes(seconds: float | None) -> str:
    return "?" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
