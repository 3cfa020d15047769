import importlib
import inspect
import json
import marshal
import os
import pkgutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import tiny_model

import calib_utils
from calib_utils import data, models, semantics, text, training
from calib_utils.errors import DataError, TrainingError
from calib_utils.training import (
    METHODS,
    ROWS,
    CATTOOptions,
    CFTOptions,
    DPOOptions,
    Method,
    Stage,
    fit,
    key,
    label_smoothed,
    lm_head,
    rows,
    train,
    watch,
)
from calib_utils.types import Completion, Prompt, Question, Record

COLOURS = ("red", "blue", "green")
SFT = Stage("sft", steps=10, learning_rate=1e-2, n_questions=12, batch_size=4, keep=(5,), lora_rank=2)
DPO = Stage("dpo", steps=4, learning_rate=1e-3, parent=SFT, n_questions=12, batch_size=4, lora_rank=2)
GRPO = Stage(
    "grpo", 4, 1e-2, parent=SFT, n_questions=12, batch_size=2, group_size=4, beta=0.0, undecided=False, lora_rank=2
)


def question(i, split="train", answer=None):
    answer = answer or COLOURS[i % 3]
    text = f"{'one two yes'.split()[i % 3]} {'# : Q'.split()[i // 3 % 3]} {'A no'.split()[i // 9 % 2]}"
    return Question(f"q/{i}", text, answer, "colour", split, f"{answer}.", choices=COLOURS)


QUESTIONS = [question(i) for i in range(18)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model in a folder, so that stages can load it anew."""
    folder = tmp_path_factory.mktemp("base")
    lm = tiny_model()
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return models.load(str(folder), "float32", "cpu")


def first_word(response, question):
    """What a barely trained model can get right now and then."""
    return (response.text.split() or [text.NO_ANSWER])[0]


def always_the_same(response, question):
    return "always the same"


def nth_word(response, question, n, ignored=frozenset()):
    """A collapse function with settings, for `partial`."""
    words = [word for word in response.text.split() if word not in ignored]
    return (words[n:] or [text.NO_ANSWER])[0]


@dataclass(frozen=True)
class Known:
    """A collapse function of somebody else's module, as a dataclass."""

    answer: object
    names: dict

    def __call__(self, response, question):
        return self.names.get(response.text, self.answer(response, question))


def run(stage, base, folder, questions=QUESTIONS, collapse=first_word):
    return train(stage, base, questions, collapse, folder, progress=False)


def weights(lm):
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def lineage(base, tmp_path_factory):
    """Every method once, with the rows that trl was given."""
    folder, given = tmp_path_factory.mktemp("stages"), {}
    original = fit._trainer

    def spy(of, rows, *rest):
        given[of.stage.method] = rows
        return original(of, rows, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_trainer", spy)
        done = {stage.method: run(stage, base, folder) for stage in (SFT, DPO, GRPO)}
    return done, given, folder


def test_the_lineage_trains_and_learns(lineage, base):
    done, _, _ = lineage
    log = done["sft"].log
    assert len(log) == SFT.steps and log["loss"].iloc[-3:].mean() < log["loss"].iloc[:3].mean() - 0.2
    assert done["dpo"].log["loss"].iloc[0] == pytest.approx(np.log(2), abs=1e-3)  # it starts at its parent
    assert done["dpo"].log["rewards/margins"].iloc[-1] > 0
    assert {"logps/chosen", "logps/rejected"} <= set(done["dpo"].log)
    assert done["grpo"].log["reward"].between(0, 1).all()
    states = [weights(trained.load()) for trained in done.values()] + [weights(base), weights(done["sft"].load(5))]
    for i, first in enumerate(states):
        assert not any(same(first, second) for second in states[i + 1 :])
    with pytest.raises(KeyError, match="step 7 of sft was not kept"):
        done["sft"].load(7)


def test_only_the_train_split_is_read(lineage, base, tmp_path):
    _, given, _ = lineage
    texts = {f"<bos>Question: {q.text}\nAnswer:" for q in QUESTIONS[:12]}
    assert all(
        set(rows["prompt"]) <= {t.replace("Question: ", "Question: ") for t in texts} for rows in given.values()
    )
    for split in ("dev", "test"):
        for stage in (replace(SFT), replace(SFT, first=6)):
            mixed = [*QUESTIONS[:11], question(11, split), *QUESTIONS[12:]]
            with pytest.raises(DataError, match="train split; 'q/11' does not"):
                run(stage, base, tmp_path, mixed)
    with pytest.raises(DataError, match="asks for 12 questions from number 10 on; there are 18"):
        run(replace(SFT, first=10), base, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_stage_is_found_and_a_changed_one_is_not(lineage, base, monkeypatch):
    done, _, folder = lineage
    monkeypatch.setattr("calib_utils.training.lineage.fit", None)
    assert run(DPO, base, folder).key == done["dpo"].key
    for changed in (
        replace(DPO, seed=1),
        replace(DPO, beta=0.2),
        replace(DPO, rejected="distractors"),
        replace(DPO, parent=None),
    ):
        with pytest.raises(TypeError):
            run(changed, base, folder)
    aliased = [replace(q, aliases=("x",)) for q in QUESTIONS]
    with pytest.raises(TypeError):
        run(SFT, base, folder, aliased)
    with pytest.raises(TypeError):
        run(SFT, base, folder, collapse=semantics.canonical)


def test_stages_trained_before_are_found_by_the_same_text():
    """The text in the key of the collapse functions that the notebooks train with, as it always was."""
    known = data.names_of(data.load_questions("facts", "train", n=300, seed=0))
    for sentences in (False, True):
        collapse = semantics.Semantic(known, sentences)
        assert key.stable_name(collapse) == repr(collapse)
    assert key.stable_name(semantics.Semantic()) == "Semantic(names={}, sentences=False)"
    assert (key.stable_name(semantics.exact), key.stable_name(semantics.canonical)) == ("exact", "canonical")


def test_a_collapse_function_is_named_by_all_that_decides_it():
    assert key.stable_name(first_word) == f"{__name__}:first_word"
    assert key.stable_name(json.dumps) == "json:dumps" != key.stable_name(marshal.dumps) == "marshal:dumps"
    assert key.stable_name(semantics.Chain(semantics.number)) == "Chain(answer=number)"
    known = Known(semantics.Semantic({"r": {"a": "b"}}), {"x": ("y",), "z": [1, None]})
    shown = "answer=Semantic(names={'r': {'a': 'b'}}, sentences=False), names={'x': ('y',), 'z': [1, None]}"
    assert key.stable_name(known) == f"{__name__}:Known({shown})"
    inner = partial(nth_word, n=1)
    assert key.stable_name(partial(inner, ignored={"b", "a"})) == (
        f"""partial({__name__}:nth_word, ignored=set(["'a'", "'b'"]), n=1)"""
    )
    assert key.stable_name(partial(Known, semantics.exact)) == f"partial({__name__}:Known, exact)"


def test_a_partial_has_the_same_name_in_every_process():
    program = (
        "from functools import partial; from calib_utils import semantics; from calib_utils.training import key\n"
        "print(key.stable_name(partial(semantics.Semantic, {'r': frozenset('abcdef')}, sentences=True)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    letters = ["'a'", "'b'", "'c'", "'d'", "'e'", "'f'"]
    assert shown == f"partial(Semantic, {{'r': frozenset({letters})}}, sentences=True)\n"
    names = {"r": frozenset("fedcba")}
    assert shown == key.stable_name(partial(semantics.Semantic, names, sentences=True)) + "\n"


def local_function():
    def first_word(response, question):
        return response.text

    return first_word


class Stateful:
    """Callable, and nothing says what it holds."""

    def __call__(self, response, question):
        return response.text

    def method(self, response, question):
        return response.text


@pytest.mark.parametrize(
    "collapse",
    [
        lambda response, question: response.text,
        local_function(),
        partial(lambda response, question, n: response.text, n=1),
        Stateful(),
        Stateful().method,
        Known(lambda response, question: "", {}),
        semantics.Semantic(defaultdict(dict)),
    ],
    ids=["lambda", "local", "partial", "object", "method", "field", "defaultdict"],
)
def test_a_collapse_function_without_a_name_is_refused_before_training(collapse, base, tmp_path):
    with pytest.raises(TrainingError) as caught:
        run(DPO, base, tmp_path, collapse=collapse)
    assert str(caught.value).startswith("a stage trained with ")
    assert str(caught.value).endswith(
        " could not be found again: no other process knows it by a name. Define the collapse function at the top "
        "level of a module and import it, take one of `semantics`, or use a dataclass whose fields hold plain values"
    )
    assert not list(tmp_path.iterdir())


def test_a_collapse_function_of_a_script_is_refused(monkeypatch):
    monkeypatch.setattr(first_word, "__module__", "__main__")  # as defined in a notebook's cell
    monkeypatch.setattr(sys.modules["__main__"], "first_word", first_word, raising=False)
    with pytest.raises(
        TrainingError, match=r"a stage trained with <function first_word at .* could not be found again"
    ):
        key.stable_name(first_word)


def test_no_two_collapse_functions_of_the_package_share_a_name():
    """Their names stand in keys without a module."""
    found = defaultdict(set)
    for module in pkgutil.walk_packages(calib_utils.__path__, "calib_utils."):
        if module.name.endswith(("__main__", "vllm_backend")):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            asked = value.__call__ if inspect.isclass(value) and "__call__" in vars(value) else value
            if inspect.isfunction(asked) and {"response", "question"} <= set(inspect.signature(asked).parameters):
                found[name].add(value)
    assert {"exact", "canonical", "number", "first_token", "Semantic", "Chain"} <= set(found)
    assert all(len(values) == 1 for values in found.values())


def test_one_row_of_the_table_is_a_method(base, tmp_path, monkeypatch):
    """Nothing but its row tells how a method is trained: an SFT by another name has the same weights."""
    monkeypatch.setitem(METHODS, "imitation", METHODS["sft"])
    trained, known = (run(replace(SFT, method=name), base, tmp_path) for name in ("imitation", "sft"))
    assert trained.folder.name.startswith("imitation-") and same(weights(trained.load()), weights(known.load()))


def test_every_method_has_rows_a_configuration_and_a_trainer():
    assert set(rows.MAKE_ROWS) == set(ROWS) == {method.rows for method in METHODS.values()}
    for name, method in METHODS.items():
        assert pkgutil.resolve_name(method.config).__name__.lower().endswith("config"), name
        assert pkgutil.resolve_name(method.trainer).__name__.lower().endswith("trainer"), name
    with pytest.raises(
        ValueError, match=r"^rows is 'prefixes'; use one of \('packed', 'references', 'options', 'pairs', "
    ):
        Method("prefixes", "trl:SFTConfig", "trl:SFTTrainer")


def test_which_methods_need_the_draws_of_their_parent():
    needed = {name: replace(SFT, method=name).draws for name in METHODS}
    assert needed == {"pretrain": False, "sft": False, "dpo": True, "catto": True, "grpo": True, "cft": False}
    assert not replace(DPO, rejected="distractors").draws and not replace(GRPO, undecided=False).draws


@pytest.mark.parametrize(
    "stage", [SFT, replace(GRPO, steps=10, parent=None), replace(DPO, steps=10)], ids=lambda stage: stage.method
)
def test_a_killed_run_resumes_to_the_same_weights(stage, base, tmp_path, monkeypatch):
    undisturbed = run(stage, base, tmp_path / "whole")
    if stage.parent:
        run(stage.parent, base, tmp_path / "cut")

    class Killed(BaseException):
        pass

    original = watch.Watch.on_step_end

    def kill(self, args, state, control, **rest):
        if state.global_step == 8:
            raise Killed
        return original(self, args, state, control, **rest)

    monkeypatch.setattr(watch.Watch, "on_step_end", kill)
    with pytest.raises(Killed):
        run(stage, base, tmp_path / "cut")
    work = next((tmp_path / "cut").glob(f"{stage.method}*.work"))
    (work / "checkpoint-7").mkdir()  # a checkpoint that was being written
    monkeypatch.setattr(watch.Watch, "on_step_end", original)
    resumed = run(stage, base, tmp_path / "cut")
    assert same(weights(undisturbed.load()), weights(resumed.load()))
    assert not work.exists() and len(resumed.log) == stage.steps


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_prompt_tokens_are_not_projected_to_the_vocabulary(method, lineage, base, tmp_path, monkeypatch):
    rows, projected = {}, []
    original, fused = fit._trainer, lm_head.ScoredHead.apply

    def spy(hidden, *rest):
        projected.append(len(hidden))
        return fused(hidden, *rest)

    def watch_labels(*arguments):
        trainer = original(*arguments)
        forward = trainer.compute_loss

        def count(model, inputs, *rest, **options):
            if "labels" in inputs:
                rows.setdefault("tokens", []).append(int((inputs["labels"][:, 1:] != -100).sum()))
            else:
                rows.setdefault("tokens", []).append(int(inputs["completion_mask"].sum()))
            return forward(model, inputs, *rest, **options)

        trainer.compute_loss = count
        return trainer

    monkeypatch.setattr(lm_head.ScoredHead, "apply", spy)
    monkeypatch.setattr(fit, "_trainer", watch_labels)
    stage = replace({"sft": SFT, "dpo": DPO, "grpo": GRPO}[method], parent=None, steps=2, keep=())
    run(stage, base, tmp_path)
    assert set(projected) <= set(rows["tokens"]) and len(projected) >= 2


def test_all_weights_can_be_trained_and_carried_on(lineage, base, tmp_path):
    _, _, folder = lineage
    full = replace(DPO, lora_rank=0, learning_rate=1e-3)
    trained = run(full, base, folder)
    assert trained.log["loss"].iloc[0] == pytest.approx(np.log(2), abs=1e-3)
    start, end = weights(run(SFT, base, folder).load()), weights(trained.load())
    assert not torch.equal(start["model.embed_tokens.weight"], end["model.embed_tokens.weight"])
    after = run(replace(SFT, parent=full), base, folder)  # an adapter on a fully trained parent
    assert after.base.startswith(str(trained.folder))
    assert not same(end, weights(after.load()))


@pytest.mark.parametrize("spoiled, at, seen", [("loss", 6, 8), ("grad_norm", 9, 10), ("grad_norm", 7, 8)])
def test_a_diverged_run_stops_and_keeps_the_last_good_weights(spoiled, at, seen, base, tmp_path, monkeypatch):
    original = fit._trainer

    def poisoned(*arguments):
        trainer = original(*arguments)
        step = trainer.training_step

        def poison(model, *rest):
            loss = step(model, *rest)
            if trainer.state.global_step == at:
                where = next(p for p in model.parameters() if p.requires_grad)
                (where.grad if spoiled == "grad_norm" else where).data.fill_(float("nan"))
            return loss

        trainer.training_step = poison
        return trainer

    monkeypatch.setattr(fit, "_trainer", poisoned)
    with pytest.raises(
        TrainingError, match=rf"sft diverged at step {seen}: the {spoiled} is nan.*checkpoint-5.*lear"
    ):
        run(SFT, base, tmp_path)
    kept = next(tmp_path.glob("*.work")) / "checkpoint-5" / "adapter_model.safetensors"
    from safetensors.torch import load_file

    assert all(value.isfinite().all() for value in load_file(kept).values())
    assert not list(tmp_path.glob("*/stage.json"))


def test_a_reward_that_never_varies_is_an_error(base, tmp_path):
    stage = replace(GRPO, parent=None, steps=2)
    with pytest.raises(TrainingError, match="reward was the same for all 4 answers"):
        run(stage, base, tmp_path, collapse=always_the_same)


def record(q, *completions):
    drawn = tuple(Completion(f" {text}", (1,), count, 0.0, finished) for text, count, finished in completions)
    return Record(q, drawn, (1,), {}, "key")


def test_preference_pairs_come_from_wrong_draws_only():
    records = [
        record(question(0), ("red", 5, True), ("blue", 2, True), ("green", 1, False)),
        record(question(1), ("blue", 8, True)),
        record(question(2), ("", 4, True), ("red", 4, True)),
    ]
    pairs = training.preference_pairs(records, semantics.exact)
    assert [(q.id, rejected) for q, rejected in pairs] == [("q/0", "blue"), ("q/2", "red")]
    many = training.preference_pairs(
        [record(replace(question(0), id=str(i)), ("blue", 3, True), ("green", 1, True)) for i in range(400)],
        semantics.exact,
    )
    assert 0.68 < np.mean([rejected == "blue" for _, rejected in many]) < 0.82
    with pytest.raises(TrainingError, match="no draw was wrong"):
        training.preference_pairs(records[1:2], semantics.exact)


def test_majority_pairs_prefer_the_most_frequent_class_right_or_wrong():
    records = [
        record(question(0), ("blue", 9, True), ("red", 6, True), ("green", 1, False)),
        record(question(1), ("Red", 2, True), ("red .", 2, True), ("blue", 3, True), ("", 9, True)),
        record(question(2), ("blue", 8, True)),
        record(question(3), ("red", 4, True), ("green", 4, True)),
    ]
    assert [q.answer for q in (question(0), question(1))] == ["red", "blue"]
    pairs = training.majority_pairs(records, semantics.canonical)
    assert [(q.id, chosen, rejected) for q, chosen, rejected in pairs[:1]] == [("q/0", "blue", "red")]
    assert pairs[1][1] in ("Red", "red .") and pairs[1][2] == "blue"  # four draws of one meaning outvote three
    assert [(q.id, chosen, rejected) for q, chosen, rejected in pairs[2:]] == [("q/3", "green", "red")]
    many = [
        record(replace(question(0), id=str(i)), ("blue", 8, True), ("red", 3, True), ("green", 1, True))
        for i in range(400)
    ]
    rejected = [bad for _, _, bad in training.majority_pairs(many, semantics.exact)]
    assert 0.68 < np.mean([bad == "red" for bad in rejected]) < 0.82
    with pytest.raises(TrainingError, match="always answered alike"):
        training.majority_pairs(records[2:3], semantics.canonical)


def test_undecided_questions_are_right_sometimes():
    records = [
        record(question(0), ("red", 5, True), ("blue", 3, True)),
        record(question(1), ("blue", 8, True)),
        record(question(2), ("red", 8, True)),
    ]
    assert [q.id for q in training.undecided(records, semantics.exact)] == ["q/0"]
    with pytest.raises(TrainingError, match="no reward would vary"):
        training.undecided(records[1:], semantics.exact)


def test_pairs_that_teach_nothing_are_refused():
    good = (question(0), "blue")
    training.check_pairs([good], semantics.Semantic())
    with pytest.raises(TrainingError, match=r"'q/1'.*'blue' and rejected 'the Blue\.' are the same answer"):
        training.check_pairs([good, (question(1), "the Blue.")], semantics.Semantic())
    with pytest.raises(TrainingError, match="'q/1': the rejected answer is empty"):
        training.check_pairs([(question(1), " ")], semantics.Semantic())
    assert {rejected for _, rejected in training.distractor_pairs(QUESTIONS)} <= set(COLOURS)
    assert all(rejected != q.answer for q, rejected in training.distractor_pairs(QUESTIONS))
    with pytest.raises(TrainingError, match="has no wrong options"):
        training.distractor_pairs([replace(question(0), choices=None)])


def test_completions_without_tokens_are_refused(base, monkeypatch, tmp_path):
    class Forgetful:
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

        def __getattr__(self, name):
            return getattr(self.tokenizer, name)

        def __call__(self, text, **options):
            return self.tokenizer(text.replace("green", ""), **options)

    with pytest.raises(TrainingError, match=r"the completion of .* has no tokens: ' green'"):
        run(SFT, replace(base, read_tokenizer=lambda: Forgetful(base.tokenizer)), tmp_path)


def test_the_reward_is_verified_by_the_collapse_function():
    reward = training.correctness_reward(QUESTIONS, [(7,)] * len(QUESTIONS), semantics.Semantic())
    answers = [" Red\nQuestion: one", " blue", "", " the red."]
    assert reward(answers, [(1,)] * 4, id=["q/0", "q/0", "q/0", "q/3"]) == [1.0, 0.0, 0.0, 1.0]
    by_token = training.correctness_reward(QUESTIONS, [(7,)] * len(QUESTIONS), semantics.first_token)
    assert by_token(["x", "x"], [(7, 1), (8, 1)], id=["q/0", "q/0"]) == [1.0, 0.0]


def test_the_prompt_has_one_beginning(base):
    text = training.prompt_text(base.tokenizer, Prompt("", "one two"))
    assert base.tokenizer(text).input_ids == models.encode(base.tokenizer, "one two")
    chat = training.prompt_text(base.tokenizer, Prompt("", "one two", chat=True))
    assert base.tokenizer(chat).input_ids == models.encode(base.tokenizer, "one two", chat=True)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"method": "ppo"}, r"method is 'ppo'; use one of \('pretrain', 'sft', 'dpo', 'catto', 'grpo', 'cft'\)"),
        ({"rejected": "others"}, "rejected is 'others'"),
        ({"steps": 0, "keep": ()}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"keep": (10,)}, "between 0 and steps"),
        ({"parent": SFT, "lora_rank": 4}, "lora_rank is 4, but the parent"),
        ({"method": "grpo", "group_size": 1}, "at least 2 answers"),
    ],
)
def test_a_stage_that_makes_no_sense_is_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(SFT, **wrong)


def test_a_stage_says_what_made_it(lineage):
    done, _, _ = lineage
    about = json.loads((done["dpo"].folder / "stage.json").read_text())
    assert (
        about["stage"]["beta"] == 0.1 and about["stage"]["parent"]["method"] == "sft" and "trl" in about["versions"]
    )


def test_a_style_says_what_is_trained_on(base, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(rows, "_filled", lambda lm, example: given.append(example) or example)
    reasoned = [replace(q, chain=("one two .",)) for q in QUESTIONS]
    stage = replace(SFT, steps=1, keep=(), style="cot")
    run(stage, base, tmp_path, reasoned)
    assert given[0]["completion"] == f" one two . The answer is {reasoned[0].answer}."
    with pytest.raises(ValueError, match="no worked chain"):
        run(stage, base, tmp_path)


def test_options_reach_the_trainer_and_the_key(lineage, base, tmp_path):
    plain = lineage[0]["dpo"]
    catto = run(replace(DPO, method="catto", options=CATTOOptions(calibration_weight=0.0)), base, lineage[2])
    assert catto.key != plain.key
    assert catto.log["loss"].tolist() == plain.log["loss"].tolist()  # weight 0 is DPO
    calibrated = run(replace(DPO, method="catto", options=CATTOOptions(calibration_weight=2.0)), base, lineage[2])
    assert (calibrated.log["loss"] > plain.log["loss"]).all() and "calibration/chosen" in calibrated.log
    mixed = run(replace(DPO, options=DPOOptions(loss_type=("sigmoid", "sft"))), base, lineage[2])
    assert (mixed.log["loss"] > plain.log["loss"] + 0.5).all()  # the cross-entropy of the chosen answers on top
    with pytest.raises(ValueError, match=r"options are CATTOOptions\(.*; method 'dpo' takes DPOOptions"):
        replace(DPO, options=CATTOOptions(calibration_weight=1.0))
    with pytest.raises(ValueError, match=r"calibration_form|form is 'l3'"):
        run(replace(DPO, method="catto", options=CATTOOptions(calibration_form="l3")), base, tmp_path)


def test_label_smoothing_is_the_loss_of_cdpo(lineage, base):
    # One pair a step, so that the logged margin is h itself.
    stage = replace(DPO, batch_size=1, learning_rate=1e-2, beta=1.0, options=label_smoothed(0.2))
    log = run(stage, base, lineage[2]).log
    h = log["rewards/margins"].to_numpy()
    expected = 0.8 * np.logaddexp(0, -h) + 0.2 * np.logaddexp(0, h)
    assert np.abs(h).max() > 0.05
    np.testing.assert_allclose(log["loss"], expected, atol=2e-4)
    with pytest.raises(ValueError, match=r"epsilon is 0\.5"):
        label_smoothed(0.5)


def test_cft_goes_on_from_any_stage(lineage, base):
    stage = replace(DPO, method="cft", parent=DPO, options=CFTOptions(1.0, estimate_steps=2))
    done = run(stage, base, lineage[2])
    assert {"calibration/loss", "calibration/ece"} <= set(done.log.columns)
    assert not same(weights(lineage[0]["dpo"].load()), weights(done.load()))
    with pytest.raises(TrainingError, match="has no options; CFT needs multiple choice"):
        run(stage, base, lineage[2], [replace(q, choices=None) for q in QUESTIONS])
