"""A model behind a real server, which this file starts."""

import logging
import math
import traceback

import pytest
from conftest import tiny_model
from server import Manners, serving

from calib_utils.errors import ModelError, SamplingError
from calib_utils.records import read
from calib_utils.running.cli import main
from calib_utils.studies.audit import Endpoint, Settings, audit
from calib_utils.types import Prompt, SamplingConfig

KEY = "sk-a-key-that-nobody-may-see"
CONFIG = SamplingConfig(60, 1.0, 3, ("#",), seed=1)
ASKED = [Prompt("", "Q red A"), Prompt("", "Q blue A")]


@pytest.fixture(scope="module")
def lm():
    return tiny_model(scale=3.0)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n" + "".join(f"{word},{word}\n" for word in ("red", "blue", "green", "one")))
    return path


def endpoint(lm, url, **options):
    return Endpoint(lm.name, url, **{"chat": False, "retries": 2, **options})


def test_draws_come_from_the_model_and_their_log_probabilities_with_them(lm):
    with serving(lm, manners := Manners(key=KEY)) as url:
        drawn = endpoint(lm, url, per_request=7).draw(ASKED, CONFIG)
    assert all(sum(one.count for one in completions) == 60 for completions in drawn)
    assert sorted(body["n"] for body in manners.asked) == sorted([7] * 16 + [4] * 2)
    assert len({body["seed"] for body in manners.asked}) == 18  # else the same draws would count twice
    assert {body["top_p"] for body in manners.asked} == {1.0}
    for completions in drawn:
        top = completions[0]
        p = math.exp(top.logprob)
        assert abs(top.count / 60 - p) < 4 * math.sqrt(p * (1 - p) / 60) + 1e-9


def test_the_same_seed_gives_the_same_draws(lm):
    with serving(lm) as url:
        first, second = (endpoint(lm, url).draw(ASKED, CONFIG) for _ in range(2))
    assert first == second


def test_a_server_that_gives_less_than_asked_is_an_error_that_says_what_to_do(lm):
    with serving(lm, Manners(at_most=1)) as url:
        with pytest.raises(SamplingError, match=r"was asked for 8 draws in a request and gave 1; use per_request=1"):
            endpoint(lm, url).draw(ASKED, CONFIG)
        (one, _) = endpoint(lm, url, per_request=1).draw(ASKED, CONFIG)
        assert sum(completion.count for completion in one) == 60 and len(one) > 1


def test_refusals_for_load_are_waited_out_and_not_for_ever(lm):
    with serving(lm, manners := Manners(refused=3)) as url:
        endpoint(lm, url, retries=4, workers=1).draw(ASKED[:1], SamplingConfig(4, 1.0, 3))
        assert len(manners.asked) == 4
        manners.refused = 9
        with pytest.raises(
            SamplingError, match=r"refuses after 2 retries, too many requests .*finished chunks are kept"
        ):
            endpoint(lm, url, workers=1).draw(ASKED[:1], SamplingConfig(4, 1.0, 3))


def test_a_server_without_log_probabilities_will_do(lm):
    with serving(lm, Manners(logprobs=False)) as url:
        (completions, _) = endpoint(lm, url).draw(ASKED, CONFIG)
    assert all(math.isnan(one.logprob) for one in completions)


def test_what_is_wrong_with_a_server_is_told(lm):
    unknown = pytest.raises(ModelError, match=r"'other' at http.* was not found .*check the model's name")
    with serving(lm) as url, unknown:
        Endpoint("other", url, retries=0).draw(ASKED, CONFIG)
    with pytest.raises(SamplingError, match=r"cannot be reached .*does the server run"):
        endpoint(lm, url, retries=0).draw(ASKED, CONFIG)
    with pytest.raises(ModelError, match="begin with http"):
        Endpoint("m", "localhost:8000")
    with pytest.raises(ModelError, match="holds a password or a query") as caught:
        Endpoint("m", f"http://me:{KEY}@localhost:8000")
    assert KEY not in str(caught.value)
    with pytest.raises(ModelError, match="extra holds the key"):
        Endpoint("m", "http://localhost:8000", extra={"token": KEY})


@pytest.mark.parametrize("wrong", ["key", "model"])
def test_no_error_tells_the_key(lm, wrong, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    manners = Manners(key=KEY if wrong == "model" else "another")
    with serving(lm, manners) as url, pytest.raises(ModelError) as caught:
        Endpoint(lm.name if wrong == "key" else "other", url, retries=0).draw(ASKED, CONFIG)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert KEY not in "".join(told.format()) and KEY not in caplog.text and KEY not in repr(caught.value.__context__)
    if wrong == "key":
        assert "the key in $OPENAI_API_KEY is not accepted" in str(caught.value)


def test_an_audit_goes_on_from_its_records_and_no_file_holds_the_key(lm, rows, tmp_path):
    settings = Settings(n_samples=8, n_boot=200, shots=0, max_new_tokens=3)
    with serving(lm, manners := Manners(key=KEY)) as url:
        found = audit(endpoint(lm, url), rows, settings, folder=tmp_path, report=str)
        asked = len(manners.asked)
        again = audit(endpoint(lm, url), rows, settings, folder=tmp_path, report=str)
        assert asked == 4 == len(manners.asked)
        command = ["audit", lm.name, "--endpoint", url, "--completions", "--data", str(rows), "--n-samples", "4"]
        assert main([*command, "--shots", "0", "--max-new-tokens", "3", "--output", str(tmp_path / "page")]) == 0
    assert found.results[0].answered == again.results[0].answered
    assert found.results[0].about["server"] == url and found.results[0].about["chat"] is False
    records = read(tmp_path / "records")
    assert {record.condition["server"] for record in records} == {url} and len(records) == 4
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3 and not any(KEY.encode() in path.read_bytes() for path in files)


def test_chat_is_asked_in_turns_and_options_by_their_letters(lm, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "red", "answer": "two", "choices": ["one", "two"]}\n' * 3)
    settings = Settings(n_samples=8, n_boot=200, shots=0, max_new_tokens=3)
    with serving(lm, manners := Manners()) as url:
        found = audit(endpoint(lm, url, chat=True), path, settings, folder=tmp_path, report=str)
    (turn,) = manners.asked[0]["messages"]
    assert turn["role"] == "user" and turn["content"].endswith("red\nA. one\nB. two\nAnswer with the letter.")
    assert found.results[0].about["kind"] == "choice" and found.results[0].answered[0].reference == "two"
