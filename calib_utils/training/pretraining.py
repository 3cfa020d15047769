"""A family of small language models trained from scratch on the facts: corpus, tokenizer, shapes, untrained weights.

Training itself is a `Stage("pretrain")`, which starts from the untrained weights made here.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from calib_utils import crossing, storage
from calib_utils.data import rephrased
from calib_utils.data.facts import PHRASINGS
from calib_utils.errors import DataError
from calib_utils.models import without_bars
from calib_utils.prompts import build_prompts
from calib_utils.storage import text_digest
from calib_utils.types import Question

BOS, EOS = "<s>", "</s>"
ROW = 64  # tokens of a packed training row
_RAREST = 0.05  # exposure is 1 / (_RAREST + 1 - popularity): the best known fact is seen 21 times as often
_VERSION = 1  # part of every name: change it when the same shape would start differently


@dataclass(frozen=True)
class Shape:
    """Size of a decoder-only transformer of the Llama kind (tied embeddings, heads of 32, SwiGLU of 8/3 the width).

    Attributes
    ----------
    width : hidden size, a multiple of 32.
    layers : transformer blocks.
    """

    width: int
    layers: int

    def __post_init__(self) -> None:
        if self.width < 32 or self.width % 32 or self.layers < 1:
            raise ValueError(f"{self} is no shape: width must be a multiple of 32, layers at least 1")


def documents(questions: Sequence[Question]) -> tuple[list[str], np.ndarray]:
    """What the family reads about embedded facts: every fact as a statement and as a question in two phrasings.

    The first phrasing is never read: `data.rephrased(questions, 0)` asks for read facts in words that are new.
    Returns the texts and the probability of each one to be drawn. Half of a fact's exposure is its statement. The
    exposure of facts follows their popularity, with a long tail: proportional to 1 / (0.05 + 1 - popularity).

    Raises DataError for a question that is not one of the embedded facts, or not from the train split.
    """
    strangers = [question.id for question in questions if question.split != "train"]
    if strangers:
        raise DataError(f"question {strangers[0]!r} is not of the train split: the family must not read it")
    unknown = [question.id for question in questions if question.popularity is None]
    if unknown:
        raise DataError(
            f"question {unknown[0]!r} has no popularity, which decides how often the family reads it: take "
            "questions of the embedded facts"
        )
    exposure = np.array([1 / (_RAREST + 1 - question.popularity) for question in questions])
    texts, weights = [question.statement for question in questions], [exposure / 2]
    for phrasing in range(1, PHRASINGS):
        asked = build_prompts(rephrased(questions, phrasing), [])
        texts += [f"{prompt.own}{prompt.blank}{q.answer}" for q, prompt in zip(questions, asked, strict=True)]
        weights.append(exposure / 2 / (PHRASINGS - 1))
    p = np.concatenate(weights)
    return texts, p / p.sum()


def rows(tokenizer, questions: Sequence[Question], n: int, seed: int) -> list[list[int]]:
    """`n` rows of `ROW` token ids: documents drawn by their exposure, each between BOS and EOS, one after another."""
    texts, p = documents(questions)
    bodies = tokenizer(texts, add_special_tokens=False).input_ids
    ids = [[tokenizer.bos_token_id, *body, tokenizer.eos_token_id] for body in bodies]
    rng, stream = np.random.default_rng(seed), []
    while len(stream) < n * ROW:
        for at in rng.choice(len(ids), size=1024, p=p):
            stream += ids[at]
    return [stream[i * ROW : (i + 1) * ROW] for i in range(n)]


def untrained(
    shape: Shape, questions: Sequence[Question], folder: str | Path, seed: int = 0, vocabulary: int = 2048
) -> Path:
    """Folder with a model of this shape at its random start, and its tokenizer, for `models.load`.

    Parameters
    ----------
    questions : what the tokenizer (byte-level BPE) is trained on, by `documents`; held-out names are not seen.
    folder : where it is made, once.
    seed : of the weights.
    vocabulary : number of tokens.
    """
    texts, _ = documents(questions)
    name = text_digest(json.dumps([_VERSION, asdict(shape), seed, vocabulary, texts]), 8)
    target = Path(folder) / f"untrained-{name}"
    if crossing.reading():
        return target  # what it would be called; its name says what is in it
    if target.is_dir():
        return target
    with storage.lock(target):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as work:
                ready = Path(work) / target.name  # readable by others, which the temporary folder itself is not
                tokenizer = _tokenizer(texts, vocabulary)
                tokenizer.save_pretrained(ready)
                with without_bars():
                    _model(shape, tokenizer, seed).save_pretrained(ready)
                storage.share(ready)
                os.replace(ready, target)
    return target


def _tokenizer(texts: Sequence[str], vocabulary: int):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    core = ByteLevelBPETokenizer()
    core.train_from_iterator(
        sorted(set(texts)), vocab_size=vocabulary, special_tokens=["<pad>", BOS, EOS], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer,
        pad_token="<pad>",
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )


def _model(shape: Shape, tokenizer, seed: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=round(shape.width * 8 / 3 / 32) * 32,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 32,
        max_position_embeddings=4 * ROW,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
