import numpy as np
import pytest
import torch
from conftest import WORDS, tiny_model
from scipy.stats import chi2, chi2_contingency

from calib_utils.errors import SamplingError
from calib_utils.running import bench
from calib_utils.sampling import option_logprobs, sample, sampler, score
from calib_utils.sampling.cache import TreeCache
from calib_utils.sampling.prefix_tree import admit
from calib_utils.types import Prompt, SamplingConfig

PROMPT = Prompt("Q red A blue Q two A one ", "Q green A")
SHORT = SamplingConfig(n_samples=50, max_new_tokens=2, stop=("#",))


def next_probabilities(lm, ids, temperature=1.0):
    logits = lm.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
    return torch.softmax(logits / temperature, dim=0).numpy()


def prompt_ids(lm, prompt):
    return lm.tokenizer("<bos> " + prompt.shared + prompt.own, add_special_tokens=False).input_ids


def enumerate_completions(lm, prompt, config):
    """Every completion of at most two tokens and its probability, by plain forward passes."""
    ends = {WORDS.index("<eos>"), WORDS.index("#")}
    start, table = prompt_ids(lm, prompt), {}
    for first, p in enumerate(next_probabilities(lm, start, config.temperature)):
        if first in ends:
            table[(first,)] = p
            continue
        for second, q in enumerate(next_probabilities(lm, [*start, first], config.temperature)):
            table[(first, second)] = p * q
    assert sum(table.values()) == pytest.approx(1)
    return table


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_agree_with_the_enumerated_distribution(tiny, temperature):
    config = SamplingConfig(20_000, temperature, 2, ("#",), seed=3)
    truth = enumerate_completions(tiny, PROMPT, config)
    counts = {c.token_ids: c.count for c in sample(tiny, [PROMPT], config)[0]}
    assert set(counts) <= set(truth)
    expected = {ids: p * config.n_samples for ids, p in truth.items()}
    large = [ids for ids, e in expected.items() if e >= 5]
    observed = np.array([counts.get(ids, 0) for ids in large])
    wanted = np.array([expected[ids] for ids in large])
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    rest, rest_wanted = config.n_samples - observed.sum(), config.n_samples - wanted.sum()
    statistic += (rest - rest_wanted) ** 2 / max(rest_wanted, 1)
    assert statistic < chi2.ppf(0.999, len(large))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_confidences_agree_with_a_plain_forward(tiny, temperature):
    config = SamplingConfig(200, temperature, 6, ("#",))
    for completion in sample(tiny, [PROMPT], config)[0]:
        ids, total, tops = prompt_ids(tiny, PROMPT), 0.0, []
        for token in completion.token_ids:
            p = next_probabilities(tiny, ids, temperature)
            total += np.log(p[token])
            tops.append(p.max())
            ids = [*ids, token]
        assert completion.logprob == pytest.approx(total, abs=1e-4)
        assert completion.token_confidence == pytest.approx(np.mean(tops), abs=1e-5)


def test_counts_sum_to_m_and_completions_are_distinct(tiny):
    for completions in sample(tiny, [PROMPT, Prompt("", "Q one A")], SamplingConfig(73, 1.0, 5, ("#",))):
        assert sum(c.count for c in completions) == 73
        assert len({c.token_ids for c in completions}) == len(completions)


def test_draws_depend_on_seed_and_prompt_only(tiny):
    prompts = [Prompt(PROMPT.shared, f"Q {word} A") for word in ("red", "blue", "one", "two", "yes")]
    prompts.append(Prompt("", "Q no A"))
    config = SamplingConfig(40, 1.0, 6, ("#",))
    reference = sample(tiny, prompts, config)

    def same(a, b):
        return [(c.text, c.token_ids, c.count) for c in a] == [(c.text, c.token_ids, c.count) for c in b]

    for max_rows in (1, 3, 17):
        assert all(map(same, sample(tiny, prompts, config, max_rows), reference))
    turned = sample(tiny, prompts[::-1], config)
    assert all(map(same, turned[::-1], reference))
    other = sample(tiny, prompts, SamplingConfig(40, 1.0, 6, ("#",), seed=1))
    assert not all(map(same, other, reference))


def test_agrees_with_generate_in_distribution():
    lm = tiny_model(scale=3.0)
    config = SamplingConfig(4000, 1.0, 2, stop=(), seed=5)
    ours = {}
    for completion in sample(lm, [PROMPT], config)[0]:
        text = " ".join(lm.tokenizer.decode(completion.token_ids, skip_special_tokens=True).split())
        ours[text] = ours.get(text, 0) + completion.count
    theirs = {}
    for text in bench.by_generate(lm, [PROMPT], config)[0]:
        theirs[" ".join(text.split())] = theirs.get(" ".join(text.split()), 0) + 1
    common = [text for text in ours if ours[text] + theirs.get(text, 0) >= 20]
    table = np.array([[ours[t] for t in common], [theirs.get(t, 0) for t in common]])
    rest = 4000 - table.sum(axis=1, keepdims=True)
    assert chi2_contingency(np.hstack([table, rest + 1])).pvalue > 1e-3


def test_zero_temperature_is_greedy(tiny):
    [completion] = sample(tiny, [PROMPT], SamplingConfig(10, 0.0, 4, ("#",)))[0]
    ids, total = prompt_ids(tiny, PROMPT), 0.0
    for token in completion.token_ids:
        p = next_probabilities(tiny, ids)
        assert token == p.argmax()
        total += np.log(p[token])
        ids = [*ids, token]
    assert completion.count == 10
    assert completion.logprob == pytest.approx(total, abs=1e-4)


def test_text_ends_before_the_stop_string_and_says_whether_it_finished(tiny):
    completions = sample(tiny, [PROMPT], SamplingConfig(500, 1.5, 3, ("#",)))[0]
    stopped = [c for c in completions if WORDS.index("#") in c.token_ids]
    ended = [c for c in completions if c.token_ids[-1] == WORDS.index("<eos>")]
    cut = [c for c in completions if not c.finished]
    assert stopped and ended and cut
    assert all("#" not in c.text and c.finished for c in stopped)
    assert all("eos" not in c.text and c.finished for c in ended)
    assert all(len(c.token_ids) == 3 for c in cut)


def watch(lm, what):
    """A list that receives what(keyword arguments) of every forward pass."""
    seen = []
    lm.model.register_forward_pre_hook(lambda _, __, options: seen.append(what(options)), with_kwargs=True)
    return seen


def test_each_distinct_prefix_is_forwarded_once(tiny):
    forwarded = watch(tiny, lambda options: options["input_ids"].numel())
    completions = sample(tiny, [PROMPT], SamplingConfig(2000, 1.0, 3, ("#",)), max_rows=512)[0]
    prefixes = {c.token_ids[:k] for c in completions for k in range(1, len(c.token_ids))}
    assert sum(forwarded) == len(prompt_ids(tiny, PROMPT)) + len(prefixes)


def test_memory_does_not_grow_with_m(tiny):
    rows = watch(tiny, lambda options: len(options["logits_to_keep"]))
    sample(tiny, [PROMPT] * 3, SamplingConfig(400, 1.0, 3, ("#",)), max_rows=8)
    assert max(rows) <= 9  # eight live prefixes and one that joins


def test_out_of_memory_halves_the_rows_and_draws_the_same(tiny, monkeypatch):
    prompts, options = [PROMPT, Prompt(PROMPT.shared, "Q blue A")], [[" one", " two red"], [" yes"]]
    wanted = sample(tiny, prompts, SHORT, max_rows=64), option_logprobs(tiny, prompts, options, max_rows=64)
    tried = []

    def limited(*arguments):
        tried.append(arguments[-1])
        if tried[-1] > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return admit(*arguments)

    for module in (sampler, score):
        monkeypatch.setattr(module, "admit", limited)
    found = sample(tiny, prompts, SHORT, max_rows=64), option_logprobs(tiny, prompts, options, max_rows=64)
    assert set(tried) == {64, 32, 16, 8}
    for one, other in zip(*(drawn for drawn, _ in (wanted, found)), strict=True):
        assert [(c.text, c.count) for c in one] == [(c.text, c.count) for c in other]
    for one, other in zip(*(rated for _, rated in (wanted, found)), strict=True):
        assert np.allclose(one, other, atol=1e-5)

    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(TreeCache, "forward", never)
    with pytest.raises(SamplingError, match="one prefix at a time does not fit"):
        sample(tiny, prompts, SHORT)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinite_logits_are_an_error(tiny, bad):
    tiny.model.get_output_embeddings().weight[3, 0] = bad
    with pytest.raises(SamplingError, match="NaN or infinite"):
        sample(tiny, [PROMPT], SHORT)


def test_a_prompt_beyond_the_context_is_an_error(tiny):
    with pytest.raises(SamplingError, match=r"context of .* holds 64"):
        sample(tiny, [Prompt("", "red " * 70)], SHORT)


@pytest.mark.parametrize(
    "settings",
    [{"n_samples": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"max_new_tokens": 0}, {"stop": ("",)}],
)
def test_settings_out_of_range_are_an_error(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        SamplingConfig(**settings)


def test_an_empty_prompt_and_no_rows_are_errors(tiny):
    with pytest.raises(ValueError, match="empty"):
        sample(tiny, [Prompt("", "")], SHORT)
    with pytest.raises(ValueError, match="max_rows"):
        sample(tiny, [PROMPT], SHORT, max_rows=0)


@pytest.mark.parametrize("max_rows", [1, 7, 128])
def test_option_log_probabilities_agree_with_a_plain_forward(tiny, max_rows):
    prompts = [PROMPT, Prompt("", "Q one A"), Prompt(PROMPT.shared, "Q two two A")]
    options = [[" red", " red blue", " green # one"], [" yes", " no"], [" blue", " one two"]]
    measured = option_logprobs(tiny, prompts, options, ending=" <eos>", max_rows=max_rows)
    for prompt, texts, values in zip(prompts, options, measured, strict=True):
        for text, value in zip(texts, values, strict=True):
            ids, total = prompt_ids(tiny, prompt), 0.0
            for token in tiny.tokenizer(text + " <eos>", add_special_tokens=False).input_ids:
                total += np.log(next_probabilities(tiny, ids)[token])
                ids = [*ids, token]
            assert value == pytest.approx(total, abs=1e-4)


def test_options_must_be_there_and_distinct(tiny):
    for wrong in ([], [" red", " red"], [" red", " "]):
        with pytest.raises(ValueError, match="none, empty or repeated"):
            option_logprobs(tiny, [PROMPT], [wrong])


def test_long_chains_that_never_agree_keep_to_the_memory_bound(monkeypatch):
    lm, columns = tiny_model(scale=0.1), []  # nearly uniform over the words: prefixes multiply
    original = TreeCache.forward

    def spy(tree, ids, positions, seen, keep):
        columns.append(tuple(seen.shape))
        return original(tree, ids, positions, seen, keep)

    monkeypatch.setattr(TreeCache, "forward", spy)
    prompt, config, rows = Prompt("", "Q red A"), SamplingConfig(60, 1.0, 24, stop=()), 8
    (completions,) = sample(lm, [prompt], config, max_rows=rows)
    assert sum(c.count for c in completions) == 60 and len(completions) > 50
    path = len(prompt_ids(lm, prompt)) + 24
    assert max(width for _, width in columns) <= (rows + 1) * path  # one path of a row that joins
