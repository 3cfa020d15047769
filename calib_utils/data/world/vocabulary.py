"""Vocabulary: the words of an exact world, and a tokenizer that knows nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

END, QUESTION, ANSWER, THEREFORE = "</s>", "Question:", "Answer:", "The answer is"
SPECIAL = (END, QUESTION, ANSWER, THEREFORE)
SYLLABLES = tuple(consonant + vowel for vowel in "aeiou" for consonant in "bdfgklmnprstvz")


class WorldError(ValueError):
    """A world that cannot exist, such as one without answers; the message names the value and the remedy."""


def check_words(words: Sequence[str]) -> None:
    """Raise WorldError for a word that is empty, holds a blank, or occurs twice: forms of answers would coincide."""
    for word in words:
        if not word or not word.isalnum():
            raise WorldError(f"{word!r} is no word of a world; use letters and digits, at least one, without blanks")
    word, times = Counter(words).most_common(1)[0]
    if times > 1:
        raise WorldError(f"the word {word!r} occurs {times} times: two forms coincide; give every word one role")


def build_tokenizer(words: Sequence[str]):
    """A `transformers.PreTrainedTokenizerFast` with one token per word; "The answer is" is one word, too.

    A number before a full stop ("3.") is one token: a step of a chain. END ends a text, and pads.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *words))}, unk_token=END))
    pattern = Regex(rf"{QUESTION}|{ANSWER}|{THEREFORE}|\w+\.?")
    core.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
