"""Compat: everything that is changed inside trl, transformers and datasets, in one place."""

from __future__ import annotations

import contextlib
import os

from calib_utils.training.lm_head import ScoredHead


def silence_experiments() -> None:
    """trl warns that `rollout_func` may change: it is pinned, and a test watches what is used of it."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@contextlib.contextmanager
def unnamed_data():
    """Within it `datasets` names what it makes at random. By default it hashes the tokenizer for every name, which
    takes as long as several steps for a large one; the names serve its cache on disk only, which is not used here.
    """
    from datasets import fingerprint

    before = fingerprint.Hasher.__dict__["hash"]
    fingerprint.Hasher.hash = staticmethod(lambda _: fingerprint.generate_random_fingerprint())
    try:
        yield
    finally:
        fingerprint.Hasher.hash = before


@contextlib.contextmanager
def scored_head(record: list | None = None, compact: bool = False):
    """Within it, trl projects hidden states to the vocabulary by `ScoredHead`.

    Parameters
    ----------
    record : gets (confidence, margin) of every call, in order.
    compact : project completion positions only, on every device. trl 1.16 does so on CUDA; on a CPU it projects the
        prompt's positions too, masks them afterwards, and copies the output layer to float32 in every backward:
        several times the work of a step on short answers.
    """
    from trl.trainer import utils

    class Scoring:
        @staticmethod
        def apply(hidden, weight, bias, labels, temperature, chunk_size, softcap, scale, outputs):
            *found, confidence, margin = ScoredHead.apply(
                hidden, weight, bias, labels, softcap, scale / temperature, 1 / temperature
            )
            if record is not None:
                record.append((confidence, margin))
            return tuple(found)

    before = utils._ChunkedLogProbFunction, utils._use_triton
    utils._ChunkedLogProbFunction = Scoring
    if compact:
        utils._use_triton = lambda device: True  # read there for this choice alone
    try:
        yield
    finally:
        utils._ChunkedLogProbFunction, utils._use_triton = before
