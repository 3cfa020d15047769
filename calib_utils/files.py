"""Files: under their names whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import Counter
from pathlib import Path

from filelock import FileLock

written: Counter[str] = Counter()  # files that this process has published, by the end of their names


class WriteError(OSError):
    """A file or folder cannot be written; the message names it, the reason and the remedy."""


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
def alone(target: str | Path):
    """While it lasts no other process makes `target`; WriteError where that can neither be locked nor made."""
    lock = FileLock(f"{target}.lock")
    with writing(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
