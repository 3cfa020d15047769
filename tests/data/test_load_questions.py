import json
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from calib_utils.data import DATASETS, load_questions, rephrased, sample_evenly
from calib_utils.data.facts import build
from calib_utils.data.facts.embedded import PHRASINGS
from calib_utils.errors import DataError
from calib_utils.types import SPLITS, Question


@pytest.fixture(scope="module")
def facts():
    return {split: load_questions("facts", split) for split in SPLITS}


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in build.FACTS.read_text(encoding="utf-8").split("\n") if line]


def test_the_build_script_reproduces_the_file_byte_for_byte():
    assert build.build().encode() == build.FACTS.read_bytes()


def test_size_relations_and_phrasings(facts, rows):
    relations = Counter(q.relation for split in facts.values() for q in split)
    assert sum(relations.values()) >= 5000
    assert len(relations) >= 10
    assert len({row["id"] for row in rows}) == len(rows)
    phrasings = defaultdict(set)
    for row in rows:
        phrasings[row["relation"]].add(row["phrasing"])
    assert all(used == {0, 1, 2} for used in phrasings.values())


def test_nothing_about_a_test_entity_is_in_train(rows):
    splits = defaultdict(set)
    private = defaultdict(set)  # entity -> the names that belong to it alone
    # The answers of these are classes that entities share, as many cities share a country.
    shared = {"continent", "language", "currency", "country_of_city", "state_of_city", "state_of_county"}
    for row in rows:
        splits[row["entity"]].add(row["split"])
        private[row["entity"]].add(row["subject"])
        if row["relation"] not in shared:
            private[row["entity"]].add(row["answer"])
    assert all(len(found) == 1 for found in splits.values())
    tested = {name for row in rows if row["split"] == "test" for name in private[row["entity"]] if not name.isdigit()}
    trained = {name for row in rows if row["split"] == "train" for name in private[row["entity"]]}
    assert not tested & trained
    shown = {option for row in rows if row["split"] == "train" for option in row["choices"]}
    capitals = {row["answer"] for row in rows if row["relation"] == "capital" and row["split"] == "test"}
    assert capitals and not shown & capitals


def test_choices_hold_the_answer_once_and_nothing_else_that_is_right(rows):
    for row in rows:
        accepted = {build.fold(name) for name in [row["answer"], *row["aliases"]]}
        assert len(set(row["choices"])) == 4
        assert sum(build.fold(option) in accepted for option in row["choices"]) == 1, row


def test_the_most_frequent_option_is_no_way_to_win(rows):
    frequency = Counter((row["relation"], row["answer"]) for row in rows)
    wins = defaultdict(list)
    for row in rows:
        counts = [frequency[row["relation"], option] for option in row["choices"]]
        best = [o for o, c in zip(row["choices"], counts, strict=True) if c == max(counts)]
        wins[row["relation"]].append((row["answer"] in best) / len(best))
    assert all(sum(w) / len(w) < 0.5 for w in wins.values())
    assert sum(wins["country_of_city"]) / len(wins["country_of_city"]) < 0.4


def test_the_answer_is_not_in_the_question(facts):
    given_away = [
        q.id
        for split in facts.values()
        for q in split
        if q.relation != "capital" and f" {q.answer.lower()} " in f" {q.text.lower()} "
    ]
    assert len(given_away) <= 5, given_away[:20]


def test_fame_orders_what_everyone_knows(facts):
    popularity = {(q.relation, q.answer): q.popularity for split in facts.values() for q in split}
    assert popularity["capital", "Tokyo"] > popularity["capital", "Funafuti"]
    assert all(0 <= value <= 1 for value in popularity.values())


@pytest.mark.parametrize(
    "relation, part, answer",
    [
        ("capital", "Peru", "Lima"),
        ("capital", "Kazakhstan", "Astana"),
        ("currency", "Poland", "Polish zloty"),
        ("language", "Brazil", "Portuguese"),
        ("element_symbol", "iron", "Fe"),
        ("continent", "Kenya", "Africa"),
        ("state_of_city", "Tulsa", "Oklahoma"),
        ("country_of_city", "Kumasi", "Ghana"),
    ],
)
def test_known_facts(facts, relation, part, answer):
    found = [q for split in facts.values() for q in split if q.relation == relation and f" {part}" in f" {q.text}"]
    assert answer in {q.answer for q in found}


def test_ambiguous_places_are_left_out(rows):
    subjects = {row["subject"] for row in rows if row["relation"] == "country_of_city"}
    assert not subjects & {"Birmingham", "Valencia", "Sevastopol", "Jerusalem", "Brooklyn", "Guatemala City"}
    assert not {row["entity"] for row in rows if row["relation"] == "capital"} & {
        "country:ZA",
        "country:BO",
        "country:IL",
    }


def test_even_sampling_is_seeded_and_balanced(facts):
    drawn = sample_evenly(facts["test"], 170, seed=0)
    assert Counter(q.relation for q in drawn).most_common()[0][1] <= 11
    assert drawn == sample_evenly(facts["test"], 170, seed=0) != sample_evenly(facts["test"], 170, seed=1)
    assert drawn[:34] == sample_evenly(facts["test"], 34, seed=0)
    with pytest.raises(DataError, match="were asked for"):
        sample_evenly(facts["test"], 10_000, 0)


PUBLISHED = {
    "triviaqa": {
        "question": "Who was born in Lima?",
        "question_id": "tc_1",
        "answer": {"value": "Paddington", "aliases": ["Paddington Bear", "Paddington"], "type": "WikipediaEntity"},
    },
    "nq_open": {"question": "who came from peru", "answer": ["Paddington", "a bear"]},
    "simpleqa": {"metadata": "{'topic': 'Art'}", "problem": "Who came from Peru?", "answer": "Paddington"},
    "gsm8k": {"question": "How many are 500 and 700?", "answer": "500+700=<<500+700=1200>>1200\n#### 1,200"},
    "mmlu": {"question": "Pick one", "subject": "astronomy", "choices": ["a", "b", "c", "d"], "answer": 2},
    "truthfulqa": {
        "question": "Is Peru a bear?",
        "best_answer": "No",
        "correct_answers": ["No", "Peru is a country"],
        "incorrect_answers": ["Yes"],
    },
}
EXPECTED = {
    "triviaqa": "Paddington",
    "nq_open": "Paddington",
    "simpleqa": "Paddington",
    "gsm8k": "1200",
    "mmlu": "c",
    "truthfulqa": "No",
}


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            cells = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
            writer.writerows(cells)
    return path


def load_all(name, path):
    return [q for split in SPLITS for q in load_questions(name, split, path=path)]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_public_schemas_from_a_local_file(name, suffix, tmp_path):
    path = write(tmp_path / f"rows{suffix}", [PUBLISHED[name]])
    [question] = load_all(name, path)
    assert question.answer == EXPECTED[name]
    assert load_all(DATASETS[name].source.hub_id, path) == [question]


def test_gsm8k_chains_are_read_without_the_calculator_notes(tmp_path):
    row = {"question": "How many?", "answer": "He buys 2*3=<<2*3=6>>6.\nSo 6+1=<<6+1=7>>7.\n#### 7"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (question,) = [q for s in SPLITS for q in load_questions("gsm8k", s, path=tmp_path / "rows.jsonl")]
    assert question.chain == ("He buys 2*3=6.", "So 6+1=7.")


def test_hub_sets_are_asked_for_by_their_published_names(monkeypatch):
    import datasets

    asked = []

    def published(hub_id, config, split):
        asked.append((hub_id, config, split))
        return [{**PUBLISHED["triviaqa"], "question": f"Question {i}?"} for i in range(50)]

    monkeypatch.setattr(datasets, "load_dataset", published)
    train = load_questions("triviaqa", "train")
    dev, test = load_questions("triviaqa", "dev"), load_questions("triviaqa", "test")
    assert [split for _, _, split in asked] == ["train", "validation", "validation"]
    assert len(train) == 50 and len(dev) + len(test) == 50 and dev and test
    assert "Paddington Bear" in train[0].aliases


@pytest.mark.parametrize(
    "row, message",
    [
        ({"question": "who?"}, "row 2 .*'answer'"),
        ({"query": "who?", "answer": ["x"]}, "row 2 .*'question'"),
        ({"question": "  ", "answer": ["x"]}, "row 2 has no question"),
        ({"question": "who?", "answer": []}, "row 2 has no answer"),
        ({"question": "who?", "answer": 1813}, "row 2 .*a list of answers in JSON .*, got 1813"),
        ({"question": "who?", "answer": [None]}, "row 2: the answer None is not text"),
    ],
)
def test_a_bad_row_is_named(row, message, tmp_path):
    path = write(tmp_path / "rows.jsonl", [PUBLISHED["nq_open"], row])
    with pytest.raises(DataError, match=message):
        load_all("nq_open", path)


def test_a_text_is_one_answer_in_own_rows(tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("question,answer\nWho wrote Emma?,Jane Austen\n", encoding="utf-8")
    for name in ("nq_open", "triviaqa"):
        [question] = load_all(name, own)
        assert (question.answer, question.aliases) == ("Jane Austen", ())
    lone = {"question": "Who wrote Emma?", "answer": {"value": "Jane Austen", "aliases": "Austen"}}
    [question] = load_all("triviaqa", write(tmp_path / "trivia.csv", [lone]))
    assert (question.answer, question.aliases) == ("Jane Austen", ("Austen",))
    row = {**PUBLISHED["truthfulqa"], "correct_answers": "Never"}
    [question] = load_all("truthfulqa", write(tmp_path / "truth.csv", [row]))
    assert (question.answer, question.aliases) == ("No", ("Never",))


@pytest.mark.parametrize("name", ["nq_open", "triviaqa"])
def test_a_list_in_another_spelling_than_json_is_not_one_answer(name, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("question,answer\nWho wrote Emma?,\"['Austen', 'Jane Austen']\"\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_all(name, own)
    assert str(caught.value) == (
        f"row 1 does not follow the schema of {name!r} ({DATASETS[name].source.hub_id}): missing or wrong: wanted "
        'a text, or a list of answers in JSON such as ["yes", "no"], got "[\'Austen\', \'Jane Austen\']"; '
        "it has the fields ['answer', 'question']"
    )


def test_options_are_a_list(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{**PUBLISHED["mmlu"], "choices": "a"}])
    with pytest.raises(DataError, match="missing or wrong: wanted a list of options, got 'a'"):
        load_all("mmlu", path)


@pytest.mark.parametrize("name", ["facts", "arithmetic", "multihop"])
def test_a_set_that_is_built_in_takes_no_file(name):
    with pytest.raises(DataError) as caught:
        load_questions(name, path="own.csv")
    assert str(caught.value) == (
        f"data set {name!r} is built in and takes no file, got the path 'own.csv': leave the path out, or name the "
        "data set whose schema the rows follow, one of "
        "['gsm8k', 'mmlu', 'nq_open', 'simpleqa', 'triviaqa', 'truthfulqa']"
    )


def test_nothing_to_draw_from_is_named(tmp_path):
    path = write(tmp_path / "rows.jsonl", [PUBLISHED["nq_open"]])
    (empty, *_) = (split for split in SPLITS if not load_questions("nq_open", split, path=path))
    with pytest.raises(DataError) as caught:
        load_questions("nq_open", empty, n=5, path=path)
    assert str(caught.value) == (
        f"data set 'nq_open' from {path} has no question of split {empty!r}: use another split of "
        "('train', 'dev', 'test'), or more rows"
    )
    with pytest.raises(DataError) as caught:
        sample_evenly([], 20, 0)
    assert str(caught.value) == (
        "20 questions were asked for; none is left to draw from. The data set has none of this split, or a filter "
        "leaves none, such as held_out with every relation of the set: use another data set or split, or a shorter "
        "held_out"
    )
    with pytest.raises(DataError, match=r"^0 questions were asked for; there are 2 \(use 1 to 2\)$"):
        sample_evenly(load_questions("facts")[:2], 0, 0)


def test_an_mmlu_row_with_a_repeated_option_keeps_its_question(tmp_path):
    row = {**PUBLISHED["mmlu"], "choices": ["a", "b ", "b", "d"], "answer": 1}
    [question] = load_all("mmlu", write(tmp_path / "rows.jsonl", [row]))
    assert (question.answer, question.choices) == ("b", None)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"question": \n')
    (tmp_path / "rows.txt").write_text("x")
    for name, message in (
        ("empty.jsonl", "no rows"),
        ("broken.jsonl", "line 1"),
        ("rows.txt", "use .jsonl"),
        ("no.csv", "no such"),
    ):
        with pytest.raises(DataError, match=message):
            load_all("nq_open", tmp_path / name)


def test_line_separators_inside_a_record_do_not_split_it(tmp_path):
    row = {"question": "a\u2028b\u0085c?", "answer": ["x"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert len(load_all("nq_open", tmp_path / "rows.jsonl")) == 1


def test_questions_are_checked():
    with pytest.raises(DataError, match="not among"):
        Question("q", "t", "x", "r", "test", "s", choices=("a", "b"))
    with pytest.raises(DataError, match="repeats"):
        Question("q", "t", "a", "r", "test", "s", choices=("a", "a"))
    with pytest.raises(DataError, match="empty answer"):
        Question("q", "t", " ", "r", "test", "s")
    with pytest.raises(DataError, match="split"):
        load_questions("facts", "valid")
    with pytest.raises(DataError, match="unknown"):
        load_questions("factz")


def test_facts_are_asked_in_any_phrasing():
    questions = load_questions("facts", "dev")[:5]
    first, second = rephrased(questions, 0), rephrased(questions, 1)
    assert all(a.text != b.text and a.id == b.id and a.answer == b.answer for a, b in zip(first, second, strict=True))
    assert [q.text for q in rephrased(questions, 0, 1)] == [
        (first if i % 2 == 0 else second)[i].text for i in range(5)
    ]  # by turns
    assert all(q.text in {rephrased([q], k)[0].text for k in range(PHRASINGS)} for q in questions)
    with pytest.raises(DataError, match="'x' is not an embedded fact"):
        rephrased([replace(questions[0], id="x")], 0)
