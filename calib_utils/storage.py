"""Storage: files under their names whole or not at all, locks, digests, and generators seeded by them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from calib_utils.errors import WriteError

written: Counter[str] = Counter()  # files that this process has published, by the end of their names


@contextlib.contextmanager
def writing(path: str | Path):
    """Within it a failing disk or folder is a WriteError about `path`; what failed before as such stays as it is."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"cannot write {path}: {reason}; free space or choose another folder") from error


def publish(path: str | Path, content: bytes | str) -> None:
    """Write a file in one rename; what stood there stays until then, and after a failure.

    Raises WriteError for a full disk or a folder that cannot be written; no part of the file is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)
            raise
    written[path.suffix] += 1


@contextlib.contextmanager
def lock(target: str | Path, waiting: str = "", named: Path | None = None) -> Iterator[None]:
    """While it lasts no other process makes `target`; WriteError where that can neither be locked nor made.

    `waiting` is printed once if another process has the lock; `named` is what the error names, if not `target`.
    """
    held = FileLock(f"{target}.lock")
    with writing(named or target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            if waiting:
                print(waiting, flush=True)
            held.acquire()
    try:
        yield
    finally:
        held.release()


def check_folder(folder: Path) -> None:
    """Make a folder and write in it; WriteError if that cannot be done."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
        try:
            probe.write_bytes(bytes(4096))
        finally:
            probe.unlink(missing_ok=True)


def share(folder: Path) -> None:
    """Give every file below `folder` the mode of a new file there, which the umask decides.

    safetensors creates its files for their owner alone; a shared cache needs what other files have.
    """
    probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def text_digest(text: str, digits: int = 16) -> str:
    """The first hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def digest(value) -> str:
    """16 hexadecimal digits of a plain value (text, numbers, lists, dictionaries, dataclasses), by its JSON."""
    return text_digest(json.dumps(value, sort_keys=True, default=asdict))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def generator(*seeds: int, of: str) -> np.random.Generator:
    """Random numbers that are a function of the seeds and a text, such as a question's id."""
    return np.random.default_rng([*seeds, *of.encode()])
