"""The vLLM backend. The tests of the engine itself run where vLLM is installed (requirements-vllm.txt)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import WORDS, tiny_model

from calib_utils import models, training
from calib_utils.errors import ModelError, SamplingError
from calib_utils.models.vllm import Engine
from calib_utils.sampling import option_logprobs, sample, vllm
from calib_utils.studies import lifecycle
from calib_utils.types import Prompt, SamplingConfig

ASKED = "Question: What is the capital of {}?\nAnswer:"
CAPITALS = [
    Prompt(ASKED.format("Spain") + " Madrid\n\n" + ASKED.format("Italy") + " Rome\n\n", ASKED.format(country))
    for country in ("France", "Norway", "Ghana", "Laos", "Peru", "Oman")
]


def engine() -> Engine:
    """What a record needs to know of an engine, with the tiny model's tokenizer."""
    tiny = tiny_model()
    return Engine("tiny", "0" * 16, "bfloat16", torch.device("cpu"), lambda: None, lambda: tiny.tokenizer, "vllm 0")


def drawn(*words: str, own: float, top: float) -> SimpleNamespace:
    """A draw as vLLM reports it: per token its log-probability and that of the most probable token."""
    ids = [WORDS.index(word) for word in words]
    steps = [{token: SimpleNamespace(logprob=own), -1: SimpleNamespace(logprob=top)} for token in ids]
    return SimpleNamespace(token_ids=ids, logprobs=steps)


def test_draws_become_distinct_completions_with_counts():
    blue = drawn("blue", "two", "#", own=-1.0, top=-0.25)
    red = drawn("red", "<eos>", own=-0.5, top=-0.5)
    long = drawn("one", "one", own=-2.0, top=-1.0)
    found = vllm._merged(engine(), [blue, red, long, blue], SamplingConfig(4, stop=("#",)))
    shown = [(c.text.strip(), c.count, c.finished, c.logprob) for c in found]
    assert shown == [("blue two", 2, True, -3.0), ("red", 1, True, -1.0), ("one one", 1, False, -4.0)]
    assert [c.token_confidence for c in found] == pytest.approx([math.exp(-0.25), math.exp(-0.5), math.exp(-1)])


def test_one_greedy_draw_stands_for_all():
    config = SamplingConfig(7, 0.0, stop=("#",))
    (found,) = vllm._merged(engine(), [drawn("red", "#", own=-0.5, top=-0.5)], config)
    assert found.count == 7


def test_nan_is_named():
    with pytest.raises(SamplingError, match=r"NaN or infinite.*float32"):
        vllm._merged(engine(), [drawn("red", own=math.nan, top=0.0)], SamplingConfig(1))


def test_seed_is_a_function_of_seed_and_prompt():
    assert vllm._seed(0, [1, 2]) == vllm._seed(0, [1, 2])
    assert len({vllm._seed(0, [1, 2]), vllm._seed(1, [1, 2]), vllm._seed(0, [1, 3])}) == 3
    assert 0 <= vllm._seed(2**31, [0]) < 2**31


def test_an_engine_says_what_it_cannot_do():
    with pytest.raises(ModelError, match="option needs backend='transformers'"):
        option_logprobs(engine(), [Prompt("", "a")], [[" b"]])
    with pytest.raises(ModelError, match="training needs backend='transformers'"):
        training.train(training.Stage("sft", 1, 1e-3, n_questions=1), engine(), [], None, "runs")
    with pytest.raises(ModelError, match="next token needs backend='transformers'"):
        lifecycle.next_tokens(engine(), ["red one"])
    assert models.describe(engine())["backend"] == "vllm 0"
    with pytest.raises(ModelError, match="takes no adapter"):
        models.load(backend="vllm", adapter="somewhere")
    with pytest.raises(ValueError, match="unknown; use 'transformers' or 'vllm'"):
        models.load(backend="tgi")
    with pytest.raises(ModelError, match=r"'max_model_len'.*backend='vllm'"):
        models.load(max_model_len=10)


def test_records_of_transformers_do_not_name_a_backend():
    assert "backend" not in models.describe(tiny_model())


def test_missing_vllm_is_an_error_with_its_remedy():
    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(ModelError, match=r"requirements-vllm\.txt"):
            models.load(backend="vllm")
    else:
        pytest.skip("vLLM is installed")


@pytest.fixture(scope="module")
def both():
    """The default model in float32, in vLLM and here."""
    pytest.importorskip("vllm")
    theirs = models.load(dtype="float32", backend="vllm", enforce_eager=True)
    assert models.describe(theirs)["backend"].endswith(' {"enforce_eager": true}')
    return theirs, models.load(dtype="float32")


@pytest.mark.real_model
def test_agrees_with_the_merged_sampler(both):
    theirs, ours = both
    greedy = SamplingConfig(1, 0.0, 8)
    for a, b in zip(sample(theirs, CAPITALS, greedy), sample(ours, CAPITALS, greedy), strict=True):
        assert (a[0].text, a[0].token_ids, a[0].finished) == (b[0].text, b[0].token_ids, b[0].finished)
        assert a[0].logprob == pytest.approx(b[0].logprob, abs=0.01)
        assert a[0].token_confidence == pytest.approx(b[0].token_confidence, abs=0.01)
    for temperature in (1.0, 1.3):
        config = SamplingConfig(400, temperature, 8)
        mine = sample(ours, CAPITALS, config)
        found = sample(theirs, CAPITALS, config)
        for a, b in zip(found, mine, strict=True):
            assert sum(c.count for c in a) == 400
            known = {c.token_ids: c for c in b}
            both_drew = [(c, known[c.token_ids]) for c in a if c.token_ids in known]
            assert both_drew
            for c, d in both_drew:
                assert c.text == d.text and c.finished == d.finished
                assert c.logprob == pytest.approx(d.logprob, abs=0.02)
                assert c.token_confidence == pytest.approx(d.token_confidence, abs=0.02)
        # Counts follow the probabilities that the other sampler computed: a chi-square of the common answers.
        pairs = [(c.count, 400 * math.exp(c.logprob)) for a in found for c in a if 400 * math.exp(c.logprob) >= 10]
        z = [(count - mean) / math.sqrt(mean * (1 - mean / 400)) for count, mean in pairs]
        assert len(z) > 10 and np.mean(np.square(z)) < 2 and abs(np.mean(z)) < 1


@pytest.mark.real_model
def test_draws_repeat_with_the_seed(both):
    theirs, _ = both
    first, again = (sample(theirs, CAPITALS, SamplingConfig(50, seed=3)) for _ in range(2))
    other = sample(theirs, CAPITALS, SamplingConfig(50, seed=4))
    shares = [{c.token_ids: c.count for c in a} for a in first], [{c.token_ids: c.count for c in a} for a in again]
    assert shares[0] == shares[1]
    assert shares[0] != [{c.token_ids: c.count for c in a} for a in other]


@pytest.mark.real_model
def test_too_long_a_prompt_is_named(both):
    with pytest.raises(SamplingError, match="max_model_len"):
        sample(both[0], [Prompt("", "word " * 5000)], SamplingConfig(1))
