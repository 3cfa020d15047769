"""Questions of several data sets in one notebook's shipped records."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from calib_utils.records import shipped


def test_every_question_has_the_data_set_that_its_id_or_its_group_tells(tmp_path):
    asked = {"capital/AO": "capital", "multihop/3": "2 hops", "t1": "truthfulqa", "own": "own"}
    same = dict(
        model="m", stage="", details="", style="concise", examples=10, temperature=1.0, gold=["a"], entity="e"
    )
    same |= dict(question="?", texts=["a", "b"], counts=[2, 1], logprobs=[-0.1, -2.0], reference=1, key=0)
    rows = [same | {"question_id": name, "group": group} for name, group in asked.items()]
    (tmp_path / "records").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, shipped._DRAWS), tmp_path / "records" / "01.parquet")
    about = {"parameters": {"dataset": "nq_open", "model": "m"}}
    (tmp_path / "01_manifest.json").write_text(json.dumps(about), encoding="utf-8")
    found = shipped.read("01", tmp_path)
    assert found["dataset"].tolist() == ["facts", "multihop", "truthfulqa", "nq_open"]
    assert found["draws"].map(sorted).tolist() == [[0, 0, 1]] * 4 and set(found["condition"]) == {"base"}
