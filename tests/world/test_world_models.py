"""Models of an exact world: computed side by side, exact by enumeration, and at home in the rest of the package."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from calib_utils import metrics, models, plots, records, semantics
from calib_utils.data import known_names, load_questions
from calib_utils.data.world.answers import STYLES as STYLES_OF_ANSWERS
from calib_utils.data.world.answers import AnswerWorld
from calib_utils.data.world.lookups import STYLES, LookupWorld
from calib_utils.data.world.vocabulary import WorldError
from calib_utils.errors import TrainingError
from calib_utils.prompts import build_prompts, sampling_config
from calib_utils.sampling import option_logprobs
from calib_utils.types import SamplingConfig
from calib_utils.world import exact, house
from calib_utils.world.stack import Stack
from calib_utils.world.training import Reading, Tuning, draw, read_answers, read_lookups, tune

SMALL = {"n_answers": 4, "n_forms": 3, "n_syllables": 6}


@cache
def read(seeds=(0, 1), steps=150):
    worlds = [AnswerWorld(**SMALL, seed=seed) for seed in seeds]
    return worlds, read_answers(worlds, Reading(steps, 64, width=32))[steps]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_stack_computes_what_its_models_do_alone(layers):
    world = AnswerWorld()
    stack = Stack.untrained(world.tokenizer(), [0, 1, 2], 32, layers)
    ids = torch.randint(0, len(world.tokenizer()), (3, 4, 7), generator=torch.Generator().manual_seed(0))
    _, cache_ = stack.extend(ids[:, :, :4], None)
    for at in range(3):
        model = stack.model(at)
        assert isinstance(model, LlamaForCausalLM)
        expected = model(input_ids=ids[at]).logits
        torch.testing.assert_close(stack.logits(ids)[at], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(stack.logits(ids, 2)[at], expected[:, -2:], atol=1e-5, rtol=1e-4)
        after = stack.extend(ids[:, :, 4:], cache_)[0][at]
        torch.testing.assert_close(after, expected[:, 4:], atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_the_model_alone():
    world = AnswerWorld()
    stack = Stack.untrained(world.tokenizer(), [0, 1], 32, 2).copy(trained=True)
    # From 1: as padding, END has no gradient as an input; in training nothing that counts comes after it.
    ids = torch.randint(1, len(world.tokenizer()), (2, 4, 7), generator=torch.Generator().manual_seed(0))
    stack.logits(ids).logsumexp(-1).sum().backward()
    for at in range(2):
        model = stack.model(at).requires_grad_(True)
        model(input_ids=ids[at]).logits.logsumexp(-1).sum().backward()
        for name, weight in model.named_parameters():
            torch.testing.assert_close(stack.weights[name].grad[at], weight.grad, atol=1e-4, rtol=1e-3)


def test_seeds_trained_side_by_side_are_those_trained_alone():
    (world, other), _ = read()
    alone = read_answers([other], Reading(10, 32, width=32))[10]
    beside = read_answers([world, other], Reading(10, 32, width=32))[10]
    for name, weight in alone.weights.items():
        torch.testing.assert_close(beside.weights[name][1], weight[0], atol=1e-4, rtol=1e-3)


def test_class_masses_are_the_sum_over_all_texts():
    """Every text of up to two tokens before the answer, by brute force; what is longer has little mass."""
    worlds, stack = read()
    names = [world.names("test", 3) for world in worlds]
    found = exact.answer_masses(stack, worlds, names)
    world, model = worlds[1], stack.model(1)
    answers = range(world.first_answer, world.first_answer + world.n_answers)
    others = [t for t in range(len(world.tokenizer())) if t not in answers and t != 0]
    prompt = torch.from_numpy(world.prompt_ids(names[1])[:1])
    expected = np.zeros(world.n_answers)
    for before in [(), *((t,) for t in others)]:
        ids = torch.cat([prompt, torch.tensor([before], dtype=torch.long)], dim=1)
        p = model(input_ids=ids).logits[0].softmax(-1)
        start = np.prod([p[4 + i, t].item() for i, t in enumerate(before)])
        expected += start * p[-1, list(answers)].numpy()
    assert found[1, 0] == pytest.approx(expected, abs=0.01)
    assert (found[1, 0] <= expected + 1e-6).all() and (found.sum(-1) > 0.9).all()


def test_masses_of_sentences_are_the_sum_over_verbs_and_leading_words():
    worlds = [AnswerWorld(2, 3, n_syllables=4, seed=seed, style="sentence") for seed in (0, 1)]
    stack = read_answers(worlds, Reading(60, 32, width=32))[60]
    names = [world.names("test", 5) for world in worlds]
    found = exact.answer_masses(stack, worlds, names)
    model, world, name = stack.model(1), worlds[1], names[1][:1]
    for a in range(2):
        total = 0.0
        for verb, led in product(range(len(world.verbs)), (0, 1)):  # form 1 has the word before the answer
            text = world.answer_ids(name, np.array([a]), np.array([verb * world.n_forms + led]))[:, : 5 + led]
            ids = torch.from_numpy(np.concatenate([world.prompt_ids(name), text], axis=1))
            logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
            total += np.exp(sum(logprobs[4 + i, t].item() for i, t in enumerate(text[0])))
        assert found[1, 0, a] == pytest.approx(total, rel=1e-4)
    with pytest.raises(WorldError, match="use a world with style 'concise'"):
        exact.option_masses(stack, worlds, names, [np.zeros((5, 2), dtype=int)] * 2)


@pytest.mark.parametrize("style", STYLES_OF_ANSWERS)
def test_the_data_set_is_asked_sampled_and_scored_like_any_other(style, tmp_path):
    """`load_questions("world")`, a model of that world that has read for seconds, and nothing else of the world."""
    world = AnswerWorld(style=style)
    stack = read_answers([world], Reading(200, 128))[200]
    lm = models.load(str(stack.save(0, world.tokenizer(), tmp_path / "model")), dtype="float32")
    questions = load_questions("world", "test", 40, seed=2)
    prompts = build_prompts(questions, [], style)
    drawn = records.collect(lm, questions, prompts, sampling_config(style, 300), tmp_path, "world")
    collapse = semantics.Semantic(known_names("world"), sentences=style == "sentence")
    scores = semantics.score(drawn, collapse)
    asked = {question.id: i for i, question in enumerate(world.questions("test"))}
    names = world.names("test")[[asked[question.id] for question in questions]]
    masses = exact.answer_masses(stack, [world], [names])[0]
    order = [world.answers.index(name) for name in scores["prediction"]]
    mass, beyond = masses[np.arange(40), order], 1 - masses.sum(axis=1)
    assert beyond.mean() < 0.15
    noise = 4.5 * np.sqrt(mass * (1 - mass) / 300)
    assert ((scores["confidence"] > mass - noise) & (scores["confidence"] < mass + noise + beyond)).all()
    assert scores["correct"].mean() > 0.25
    error = metrics.evaluate(scores["confidence"], scores["correct"], n_boot=20)
    plots.reliability_diagram(metrics.reliability_curve(scores["confidence"], scores["correct"], 20), error)


def test_masses_of_look_ups_are_the_sum_over_all_chains():
    worlds = [LookupWorld(n_numbers=3, n_tables=2, longest=3, seed=seed) for seed in (0, 1)]
    stack = read_lookups(worlds, Reading(5, 16, width=32, layers=2))[5]
    problems = [world.pick(3, "test", 2) for world in worlds]
    found = exact.lookup_paths(stack, worlds, problems, "cot")
    assert found.shape == (2, 2, 9, 3)
    model, world = stack.model(1), worlds[1]
    for at, (first, second) in enumerate(product(range(3), repeat=2)):
        for last in range(3):
            answer = world.answer_ids(np.array([[first, second, last]]), "cot")
            ids = torch.from_numpy(np.concatenate([world.prompt_ids(problems[1][:1], "cot"), answer[:, :-1]], axis=1))
            logprobs = model(input_ids=ids).logits[0, -5:-1].log_softmax(-1)
            p = sum(logprobs[i, t].item() for i, t in enumerate(answer[0, :-1]))
            assert found[1, 0, at, last] == pytest.approx(np.exp(p), rel=1e-3)
    at_once = exact.lookup_paths(stack, worlds, problems, "concise")
    assert at_once.shape == (2, 2, 1, 3)
    growing = exact.intermediate(found[1], world.steps(problems[1])[:, :2], 3)
    top = found[1].sum(axis=1).max(axis=1) / found[1].sum(axis=(1, 2))
    assert growing.shape == (2, 3) and growing[:, 0] == pytest.approx(top)


def test_enumeration_the_projects_sampler_and_the_true_posterior_agree(tmp_path):
    """The whole house works on a model of the world: loader, sampler, records, semantics, metrics, plots."""
    worlds, stack = read(steps=600)
    world, names = worlds[0], [world.names("test", 60) for world in worlds]
    masses = exact.answer_masses(stack, worlds, names)[0]
    questions = world.questions("test", 60)
    lm = models.load(str(stack.save(0, world.tokenizer(), tmp_path / "model")), dtype="float32")
    prompts = build_prompts(questions, [])
    drawn = records.collect(lm, questions, prompts, SamplingConfig(400, max_new_tokens=8), tmp_path, "world")
    order = {answer: i for i, answer in enumerate(world.answers)}
    shares = np.zeros_like(masses)
    for i, record in enumerate(drawn):
        for name, share in semantics.class_distribution(
            record.question, record.completions, house.collapse(world)
        ).items():
            if name in order:
                shares[i, order[name]] = share
    noise = np.sqrt(masses * (1 - masses) / 400)
    assert (np.abs(shares - masses) < 4.5 * noise + 0.01).all()
    truth = world.posterior(names[0])
    assert np.abs(masses - truth).sum(axis=1).mean() / 2 < 0.08
    scores = semantics.score(drawn, house.collapse(world))
    curve = metrics.reliability_curve(scores["confidence"], scores["correct"], 20)
    plots.reliability_diagram(curve, metrics.evaluate(scores["confidence"], scores["correct"], n_boot=20))
    options = np.array([[order[choice] for choice in q.choices] for q in questions])
    sampled = option_logprobs(lm, prompts, [[f" {c}" for c in q.choices] for q in questions], "</s>")
    own = exact.option_masses(stack, worlds, names, [options, options])[0]
    np.testing.assert_allclose(np.stack(sampled), own, atol=1e-4)


def test_own_draws_have_the_probabilities_of_the_model():
    worlds, stack = read()
    ids = exact.stacked([world.prompt_ids(world.names("test", 1)).repeat(20_000, axis=0) for world in worlds])
    tokens, logprobs, top = draw(stack, ids, worlds[0].longest, [np.random.default_rng(i) for i in range(2)])
    p = stack.logits(ids[:, :1], 1)[:, 0, 0].softmax(-1)
    for at in range(2):
        shares = torch.bincount(tokens[at, :, 0], minlength=p.shape[1]) / 20_000
        torch.testing.assert_close(shares, p[at], atol=0.015, rtol=0)
        assert top[at, 0, 0].item() == pytest.approx(p[at].max().item(), rel=1e-4)
        assert logprobs[at, :, 0].exp().tolist() == pytest.approx(p[at][tokens[at, :, 0]].tolist(), rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "ppo"}, "method is 'ppo'; use one of"),
        ({"preferred": "best"}, "preferred is 'best'; use one of"),
        ({"steps": 0}, "must be positive"),
        ({"keep": (9,)}, r"keep is \(9,\)"),
        ({"group_size": 1}, "group_size is 1"),
        ({"label_smoothing": 0.5}, "label_smoothing must lie in"),
        ({"rejected_side": "x"}, "rejected_side is 'x'"),
        ({"surrogate_temperature": 0.0}, "surrogate temperature is 0.0"),
    ],
)
def test_impossible_tunings_name_the_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        Tuning(**{"method": "dpo", "steps": 3, **wrong})


def test_models_without_their_world_are_refused():
    worlds, stack = read()
    with pytest.raises(TrainingError, match="2 models but 1 worlds"):
        tune(stack, worlds[:1], Tuning("sft", 1))
    with pytest.raises(ValueError, match="seeds is empty"):
        Stack.untrained(worlds[0].tokenizer(), [])


def test_rewards_and_mode_preferences_raise_confidence_and_the_calibration_term_holds_it_back():
    worlds, stack = read(steps=600)
    names = [world.names("test", 60) for world in worlds]

    def confidence(**settings):
        tuned = tune(stack, worlds, Tuning(steps=60, learning_rate=3e-4, **settings))[60]
        return exact.answer_masses(tuned, worlds, names).max(axis=2).mean()

    before = exact.answer_masses(stack, worlds, names).max(axis=2).mean()
    assert confidence(method="grpo") > before + 0.08
    assert (alone := confidence(method="dpo")) > before + 0.05
    assert confidence(method="dpo", calibration_weight=1.0) < alone - 0.03
    for method, weight in (("sft", 0.0), ("cft", 0.0), ("cft", 1.0)):
        assert abs(confidence(method=method, calibration_weight=weight) - before) < 0.08


@pytest.mark.parametrize("style", STYLES)
def test_look_ups_are_learned_in_the_style_that_is_asked_for(style):
    worlds = [LookupWorld(n_numbers=3, n_tables=2, longest=1)]
    stack = read_lookups(worlds, Reading(120, 32, width=32))[120]
    problems = [worlds[0].problems(1, "test")]
    p = exact.lookup_paths(stack, worlds, problems, style)[0].sum(axis=1)
    assert (p.argmax(axis=1) == worlds[0].steps(problems[0])[:, -1]).all() and p.max(axis=1).min() > 0.8
