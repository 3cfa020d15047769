"""Files: under their names whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from pathlib import Path

written: Counter[str] = Counter()  # files that this process has published, by the end of their names


def publish(path: str | Path, content: bytes | str) -> None:
    """Write a file in one rename; what stood there stays until then, and after a failure.

    Raises OSError for a full disk or a folder that cannot be written; no part of the file is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    written[path.suffix] += 1
