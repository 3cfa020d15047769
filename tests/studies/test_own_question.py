"""One question of one's own, on the real default model."""

import pytest

from calib_utils.studies.own_question import ask


@pytest.mark.real_model
def test_an_own_question_gets_the_classes_of_fifty_draws():
    table = ask("What is the capital of Peru?")
    assert table["class"][0] == "lima" and table["confidence"][0] > 0.5 and "'Lima'" in table["responses"][0]
    assert table["confidence"].is_monotonic_decreasing and table["confidence"].sum() == pytest.approx(1)
