"""Memory: fewer rows at a time where a device has too little of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from calib_utils.errors import SamplingError

log = logging.getLogger(__name__)


def fitting(max_rows: int, attempt: Callable[[int], None]) -> int:
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
