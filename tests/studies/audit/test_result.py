"""What an audit says of models whose calibration is known."""

import json
import re

import numpy as np
import pytest

from calib_utils.errors import DataError
from calib_utils.studies.audit import report
from calib_utils.studies.audit.asking import Audit
from calib_utils.studies.audit.result import LEAST, Answered, difference_sentence, differences, measure


def answers(n=400, sharpen=1.0, seed=0, groups=("a", "b")):
    """Questions whose right answers follow p; the model says p^sharpen, renormalised."""
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        p = rng.dirichlet([0.7, 0.7, 0.7])
        said = p**sharpen / (p**sharpen).sum()
        right = int(rng.choice(3, p=p))
        found.append(
            Answered(f"q{i}", f"Question {i}?", "ABC"[right], ("A", "B", "C"), tuple(said), right, groups[i % 2])
        )
    return found


def test_an_overconfident_model_is_told_so_and_repaired_by_its_temperature():
    found = measure("m", answers(sharpen=2.0), {}, n_boot=300)
    assert re.match(
        r"overconfident by 0\.\d\d \[0\.\d\d, 0\.\d\d\] at accuracy 0\.\d\d; smECE 0\.\d\d \[0\.\d\d, 0\.\d\d\] "
        r"\(uncorrected 0\.\d\d; a calibrated model would read up to 0\.0\d\); "
        r"temperature [\d.]+ repairs it, to 0\.0\d$",
        found.verdict,
    ), found.verdict
    assert found.temperature.value == pytest.approx(2.0, rel=0.25) and found.temperature.change.high < 0


def test_a_repair_that_few_questions_leave_open_is_told_as_such():
    found = measure("m", answers(60, sharpen=2.0), {}, n_boot=300)
    change = found.temperature.change
    assert change.low < 0 < change.high and found.temperature.within_noise and found.miscalibrated
    assert found.verdict.endswith("(undecided in 60 questions)") and " may repair it, to 0." in found.verdict


def test_an_underconfident_model_is_told_so():
    found = measure("m", answers(sharpen=0.4), {}, n_boot=300)
    assert found.verdict.startswith("underconfident by 0.") and found.temperature.value < 1
    turned = re.match(r"underconfident by [\d.]+ \[([\d.]+), ([\d.]+)\]", found.verdict)
    assert 0 < float(turned[1]) < float(turned[2])


def test_a_calibrated_model_is_left_alone():
    found = measure("m", answers(), {}, n_boot=300)
    assert found.verdict.startswith("no miscalibration found in 400 questions (confidence - accuracy ")
    assert "temperature" not in found.verdict and not found.miscalibrated


def test_no_temperature_is_fitted_on_few_questions():
    found = measure("m", answers(LEAST - 1, sharpen=6.0), {}, n_boot=300)
    assert found.temperature is None and found.verdict.endswith(f"too few to fit a temperature ({LEAST} are needed)")
    with pytest.raises(DataError, match="1 question answered; an audit needs at least 2"):
        measure("m", answers(1), {})


def test_the_temperature_is_not_measured_on_what_it_was_fitted_on():
    """Wrong answers that no temperature can know of: scaling one fold leaves what the others say of it."""
    rows = answers(200, sharpen=3.0)
    found = measure("m", rows, {}, n_boot=200)
    swapped = [*rows[:-1], Answered("q199", "?", "C", ("A", "B", "C"), (0.98, 0.01, 0.01), 2, "a")]
    again = measure("m", swapped, {}, n_boot=200)
    assert found.temperature.value != again.temperature.value


def test_a_right_answer_that_was_never_drawn_counts_as_wrong():
    rows = [Answered(f"q{i}", "?", "x", ("y",), (1.0,), None, "g") for i in range(30)]
    found = measure("m", rows, {}, n_boot=200)
    assert found.estimates["accuracy"].value == 0 and found.estimates["overconfidence"].value == 1


def test_groups_are_ordered_by_their_gap_and_small_ones_left_out():
    rows = answers(100, sharpen=3.0)
    rows += [Answered(f"s{i}", "?", "A", ("A", "B", "C"), (1.0, 0.0, 0.0), 0, "small") for i in range(4)]
    table = measure("m", rows, {}, n_boot=200).groups
    gaps = table[table["metric"] == "overconfidence"]["value"].abs().tolist()
    assert set(table["group"]) == {"a", "b"} and gaps == sorted(gaps, reverse=True)
    assert measure("m", answers(30, groups=("a", "a")), {}, n_boot=200).groups.empty


def test_models_are_compared_on_the_same_questions_only():
    base, sharp = measure("base", answers(), {}, 300), measure("sharp", answers(sharpen=3.0), {}, 300)
    other = measure("other", answers(50, seed=1), {}, 200)
    table = differences([base, sharp, other], 300)
    assert set(table["model"]) == {"sharp"} and set(table["against"]) == {"base"}
    said = difference_sentence(table, "sharp")
    assert said.startswith("sharp against base, on the same 400 questions: more confident for its accuracy by 0.")
    assert "worse calibrated (smECE) by 0." in said and "(undecided: accuracy" in said


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rows = answers(60, sharpen=3.0)
    rows[0] = Answered(
        "q0", "Is <b>1 & 2</b> so?", "C", ("<i>A</i>", "B", "C"), (0.9, 0.06, 0.04), 2, "a", "", ("'A' x9",) * 3
    )
    results = [measure(name, rows, {"data": "rows.csv", "first prompt": "Q: <&>"}, 200) for name in ("one", "two")]
    found = Audit(tuple(results), differences(results, 200), "rows.csv")
    folder = tmp_path_factory.mktemp("page")
    return found, *(path.read_text() for path in report.write(found, folder))


def test_the_page_needs_nothing_beside_it(page):
    _, shown, _ = page
    assert not re.search(r"(src|href)=\"(?!data:)", shown) and "url(" not in shown and "<script" not in shown
    pictures = re.findall(r"<img [^>]*>", shown)
    assert len(pictures) == 2 and all(
        re.search(r'alt="Three panels about (one|two)\. [^"]{80,}"', one) for one in pictures
    )
    assert "&lt;b&gt;1 &amp; 2&lt;/b&gt;" in shown and "<b>" not in shown and "Q: &lt;&amp;&gt;" in shown


def test_the_first_heading_is_the_verdict_and_examples_show_their_answers(page):
    found, shown, _ = page
    (heading,) = re.findall(r"<h1>(.*?)</h1>", shown)
    assert heading == report.headline(found) and heading.startswith(
        "two against one, on the same 60 questions: no certain"
    )
    worst = shown.partition("<h3>Worst: wrong with the most confidence</h3>")[2].partition("<h3>")[0]
    assert worst.count("<table>") == report.EXAMPLES and "(right: " in worst
    assert "Risk and coverage" in shown and "Per group" in shown
    single = Audit(found.results[:1], found.differences[:0], "rows.csv")
    assert f"<h1>{found.results[0].verdict}</h1>" in report.as_html(single)


def test_the_numbers_are_json_that_any_reader_takes(page):
    found, _, numbers = page
    read = json.loads(numbers, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    one = read["results"][0]
    assert one["verdict"] == found.results[0].verdict and len(one["questions"]) == 60
    assert one["estimates"]["smece"]["plug_in"] == pytest.approx(found.results[0].estimates["smece"].plug_in)


def test_the_page_is_the_same_for_the_same_answers(page):
    found, shown, _ = page
    assert report.as_html(found) == shown
