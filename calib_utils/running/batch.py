"""Batch: several notebooks, each in a process of its own, in an order that lets them share what they train."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calib_utils import home
from calib_utils.models import cache_dir, threads
from calib_utils.running import order, progress, runner
from calib_utils.running.progress import Forecast

_TELL = 30.0  # seconds between two lines about progress
_PATIENCE = 30.0  # seconds that a notebook has to stop in
_PARENT, _LOCK = "CALIB_UTILS_PARENT", "CALIB_UTILS_GPU_LOCK"  # who started this process; the lock that it inherits


@dataclass
class Job:
    """One notebook to run: its command, what is known about its time, its process, and the seconds that it took."""

    notebook: str
    command: list[str]
    forecast: Forecast = field(default_factory=Forecast)
    process: subprocess.Popen | None = field(default=None, repr=False)
    began: float = 0.0
    seconds: float = 0.0


def command(notebook: Path, profile: str, overrides: Mapping[str, object], output: Path | None = None) -> list[str]:
    """The command line of the process that runs one notebook, its executed copy going to `output`."""
    given = [word for name, value in overrides.items() for word in ("-p", f"{name}={value!r}")]
    where = ["--output", str(output)] if output else []
    words = ["run", "--here", "--profile", profile, "--only", notebook.stem]
    return [sys.executable, "-m", "calib_utils", *words, *where, *given]


def devices() -> list[str]:
    """The visible GPUs, as CUDA_VISIBLE_DEVICES names them; none without torch, which no reading notebook needs."""
    try:
        import torch
    except ModuleNotFoundError:
        return []

    count = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names[:count] or [str(i) for i in range(count)]


def pin(gpus: Sequence[str], turn: int) -> tuple[str | None, int | None]:
    """One of several GPUs for a job, and the file whose lock keeps other runs on this machine from it.

    None where there are not several; a GPU without a lock where all are taken: jobs share them, by turn. The lock is
    that of the open file: it lasts until every process that has inherited the descriptor has closed it or ended.
    """
    for name in gpus if len(gpus) > 1 else ():
        path = cache_dir() / f"{platform.node()}-gpu-{re.sub('[^-a-zA-Z0-9]', '-', name)}.lock"
        with contextlib.suppress(OSError):  # a cache that cannot be written holds no locks
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)  # of another user it can be read, which is enough
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
            else:
                return name, lock
    return (gpus[turn % len(gpus)] if len(gpus) > 1 else None), None


def environment(jobs: int, gpu: str | None = None, lock: int | None = None) -> dict[str, str]:
    """Environment of a process: this home and package, its GPU, if it is to have one of several, and an equal share
    of the cores (alone it asks for the load when it starts its kernel).
    """
    found = {name: value for name, value in os.environ.items() if name != _LOCK}
    found |= {**home.environment(), _PARENT: str(os.getpid())}
    if jobs > 1:
        found[threads.VARIABLE] = str(threads.choose(jobs).threads)
    if gpu is not None:
        found["CUDA_VISIBLE_DEVICES"] = gpu
    if lock is not None:
        found[_LOCK] = str(lock)
    return found


def follow_parent() -> bool:
    """Whether another process has started this one as one of its jobs; from then on its end is this one's too.

    In a process that `run` has started: stop when that has ended, however it ended; hold the GPU until then.

    A SIGKILL cannot be passed on, so a thread asks once a second for the parent, and stops this process as SIGTERM
    would. The kernel below asks in the same way (ipykernel's ParentPollerUnix). It inherits the lock, since it is the
    one that computes.
    """
    lock, parent = os.environ.pop(_LOCK, None), os.environ.pop(_PARENT, None)
    runner.IPCKernelManager.inherited = (int(lock),) if lock else ()
    if parent is None:
        return False

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return True


def ready(waiting: list[Job], unfinished: set[str]) -> Job | None:
    """The first job that waits for nothing which is not finished."""
    for job in waiting:
        if not order.before(job.notebook, unfinished):
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
                job.process = _start(job.command, jobs, *pin(gpus, len(running)))
                job.began = time.monotonic()
                running.append(job)
            time.sleep(0.2)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                job.seconds = time.monotonic() - job.began
                failed += [job.notebook] if job.process.returncode else []
                told = 0.0
            if running and time.monotonic() - told > _TELL:
                told = time.monotonic()
                each = {job.notebook: (job.forecast, told - job.began) for job in running}
                tell(progress.told(each, [job.forecast for job in waiting], jobs))
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            try:
                job.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
        for one, handler in before.items():
            signal.signal(one, handler)
    return failed


def _start(words: list[str], jobs: int, gpu: str | None, lock: int | None) -> subprocess.Popen:
    held = () if lock is None else (lock,)
    try:
        return subprocess.Popen(words, env=environment(jobs, gpu, lock), cwd=runner.ROOT, pass_fds=held)
    finally:
        for file in held:  # from here on the lock is the job's
            os.close(file)
