"""Per-sample logs in the form that lm-evaluation-harness writes them."""

import json

import numpy as np
import pytest

from calib_utils.errors import DataError
from calib_utils.running.cli import main
from calib_utils.studies.audit.harness import group_logs, read_log, task_of


def sample(doc_id=0, lls=(-1.0, -3.0, -2.0), target="0", options=("Lima", "Quito", "La Paz"), **fields):
    """A line as `EvaluationTracker.save_results_samples` writes it: numbers and pairs as text."""
    top, per = int(np.argmax(lls)), np.array(lls) / [len(option) for option in options]
    golds = [int(target)] if str(target).isdigit() else [i for i, o in enumerate(options) if o == target]
    return {
        "doc_id": doc_id,
        "doc": {"question": f"Question {doc_id}?", "choices": list(options)},
        "target": str(target),
        "arguments": {
            f"gen_args_{i}": {"arg_0": f"Q: {doc_id}\nA:", "arg_1": f" {option}"} for i, option in enumerate(options)
        },
        "resps": [[[str(value), "False"]] for value in lls],
        "filtered_resps": [[str(value), "False"] for value in lls],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": float(top in golds),
        "acc_norm": float(int(np.argmax(per)) in golds),
    } | fields


def written(path, *samples):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in samples), encoding="utf-8")
    return path


@pytest.fixture
def log(tmp_path):
    return tmp_path / "samples_capitals_2026-01-02T03-04-05.678901.jsonl"


def test_the_probabilities_are_the_softmax_of_the_log_likelihoods(log):
    (one,) = read_log(written(log, sample()))
    assert one.shares == pytest.approx(np.exp([-1, -3, -2]) / np.exp([-1, -3, -2]).sum())
    assert (one.text, one.answers, one.right, one.reference) == (
        "Question 0?",
        ("Lima", "Quito", "La Paz"),
        0,
        "Lima",
    )
    assert (one.group, one.id) == ("capitals", "0")


def test_length_normalised_they_are_per_character_of_the_option(log):
    (one,) = read_log(written(log, sample(lls=(-4.0, -4.5, -5.0))), normalised=True)
    scaled = np.exp(np.array([-4.0, -4.5, -5.0]) / [4, 5, 6])
    assert one.shares == pytest.approx(scaled / scaled.sum()) and one.top == 2 and one.right == 0


def test_numbers_instead_of_text_and_lists_of_arguments_are_read_alike(log):
    plain = sample()
    plain["arguments"] = [[one["arg_0"], one["arg_1"]] for one in plain["arguments"].values()]
    plain["filtered_resps"] = [[float(value), False] for value, _ in plain["filtered_resps"]]
    raw = {name: value for name, value in sample().items() if name != "filtered_resps"}
    read = [read_log(written(log, one)) for one in (sample(), plain, plain | {"target": 0}, raw)]
    assert all(one == read[0] for one in read)


@pytest.mark.parametrize(
    "target, acc, options, right",
    [
        ("1", 0.0, ("3", "1", "2"), 1),  # a position, or the text of the second option, which is the same
        ("2", 0.0, ("0", "1", "3"), 2),
        ("2", 1.0, ("2", "1", "3"), 0),  # as a position it would be wrong, as a text it is what was counted
        ("Quito", 0.0, ("Lima", "Quito", "La Paz"), 1),
        ("[1, 2]", 0.0, ("Lima", "Quito", "La Paz"), 1),
        ("[2, 0]", 1.0, ("Lima", "Quito", "La Paz"), 0),
    ],
)
def test_a_target_is_a_position_several_positions_or_a_text(log, target, acc, options, right):
    (one,) = read_log(written(log, sample(target=target, options=options, acc=acc)))
    assert one.right == right


def test_options_that_stand_in_the_context_are_told_right_by_what_was_counted(log):
    """As in winogrande: the target is the end of the sentence, which both options share."""
    arguments = {f"gen_args_{i}": {"arg_0": f"So {name}", "arg_1": " was late."} for i, name in enumerate("AB")}
    rows = [
        sample(i, (-1.0, -2.0), "was late.", ("a", "b"), arguments=arguments, acc=float(i)) | {"doc": {}}
        for i in range(2)
    ]
    wrong, right = read_log(written(log, *rows))
    assert (wrong.right, right.right, right.answers) == (None, 0, ("So A", "So B")) and right.text == "So A"


def test_ratings_without_a_context_are_left_out(log):
    """`acc_mutual_info` adds them behind the others."""
    one = sample()
    for i, option in enumerate(("Lima", "Quito", "La Paz"), start=3):
        one["arguments"][f"gen_args_{i}"] = {"arg_0": "", "arg_1": f" {option}"}
    one["filtered_resps"] += [["-9.0", "False"]] * 3
    assert read_log(written(log, one))[0].shares == read_log(written(log, sample()))[0].shares


@pytest.mark.parametrize(
    "broken, message",
    [
        (lambda one: one.pop("doc_id"), "line 2, field 'doc_id': is missing"),
        (lambda one: one.pop("arguments"), "line 2, field 'arguments': is missing"),
        (lambda one: one.update(doc_id=0), "line 2, field 'doc_id': '0' stands in line 1 too"),
        (lambda one: one["filtered_resps"].pop(), "field 'filtered_resps': holds 2 responses for 3 requests"),
        (lambda one: one.update(filtered_resps=["text"] * 3), "response 0 is 'text', not .log-likelihood, is_greedy"),
        (
            lambda one: one["filtered_resps"].__setitem__(1, ["nan", "False"]),
            "line 2, field 'filtered_resps': response 1",
        ),
        (
            lambda one: one["filtered_resps"].__setitem__(1, ["2.5", "False"]),
            "line 2, field 'filtered_resps': response 1",
        ),
        (lambda one: one.update(filtered_resps=[["-inf", "False"]] * 3), "every log-likelihood is -inf"),
        (lambda one: one.update(arguments={"gen_args_0": {"arg_0": "Q"}}), "request 0 is .*, not context and cont"),
        (lambda one: one.update(acc=0.0), "line 2, field 'acc': is 0.0, but by target '0' option 0 is not so"),
        (lambda one: (one.pop("acc"), one.update(target="Bogota")), "field 'target': 'Bogota' names none of the 3"),
        (lambda one: one.update(filter="strict"), r"field 'filter' holds \['none', 'strict'\]"),
    ],
)
def test_a_bad_log_is_an_error_that_names_line_and_field(log, broken, message):
    one = sample(1)
    broken(one)
    with pytest.raises(DataError, match=message):
        read_log(written(log, sample(), one))


def test_a_log_that_was_cut_short_is_an_error(log, tmp_path):
    written(log, sample(), sample(1))
    log.write_text(log.read_text()[:-40])
    with pytest.raises(DataError, match=r"line 2 is not JSON .*the run was cut short"):
        read_log(log)
    log.write_text("\n")
    with pytest.raises(DataError, match="holds no samples"):
        read_log(log)
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "nothing.jsonl")
    single = sample(lls=(-1.0,), options=("Lima",))
    with pytest.raises(DataError, match="holds 1 option; the task is no multiple choice"):
        read_log(written(log, single))


def test_tasks_are_found_by_the_names_of_their_files(log, tmp_path):
    assert task_of(log) == "capitals"
    assert (
        task_of(log.with_name("samples_mmlu_high_school_2024_2026-01-02T03-04-05.6.jsonl")) == "mmlu_high_school_2024"
    )
    assert task_of(log.with_name("samples_arc_easy.jsonl")) == "arc_easy"
    written(log, sample())
    assert group_logs([tmp_path]) == {"capitals": [log]} == group_logs([log])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no samples_"):
        group_logs([empty])


def test_the_command_reads_logs_and_writes_a_page(log, tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        lls = np.log(rng.dirichlet([1.0, 1.0, 1.0]))
        rows.append(sample(i, tuple(4 * lls), str(rng.choice(3, p=np.exp(lls)))))  # four times too sure
    written(log, *rows)
    assert main(["audit", "--log", str(log), "--output", str(tmp_path / "page")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("capitals: overconfident by 0.") and "temperature" in told
    found = json.loads((tmp_path / "page" / "audit.json").read_text())
    (result,) = found["results"]
    assert result["estimates"]["accuracy"]["value"] == pytest.approx(np.mean([row["acc"] for row in rows]))
    assert (
        result["about"]["confidence"].endswith("not normalised by length")
        and result["estimates"]["smece"]["floor"] > 0
    )
    assert main(["audit", "--log", str(log), "--normalised", "--output", str(tmp_path / "page")]) == 0
    found = json.loads((tmp_path / "page" / "audit.json").read_text())
    assert found["results"][0]["about"]["confidence"].endswith("per character of the option")
    assert main(["audit", "--log", str(tmp_path / "no.jsonl"), "--output", str(tmp_path / "page")]) == 2
    assert "no such file" in capsys.readouterr().err
