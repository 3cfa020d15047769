"""What happens when machines fail: processes killed at any point, a full disk, folders that cannot be written."""

import contextlib
import errno
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile

import nbformat
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from calib_utils import data, models, records, semantics, training
from calib_utils.errors import RecordError, TrainingError
from calib_utils.home import ROOT
from calib_utils.records import collect, read
from calib_utils.running import runner
from calib_utils.running.runner import destination
from calib_utils.training import Stage, pretraining
from calib_utils.training.pretraining import Shape
from calib_utils.types import Prompt, Question, SamplingConfig

WORDS = ["red", "blue", "green", "one", "two", "yes", "no"]
TEXTS = [f"Q : {a} {b} {c} A :" for a in WORDS for b in WORDS for c in WORDS]
QUESTIONS = [Question(f"q{i}", text, "red", "r", "test", "red") for i, text in enumerate(TEXTS)]
PROMPTS = [Prompt("", text) for text in TEXTS]


def gather(folder):
    config = SamplingConfig(20, 1.0, 3, ("#",))
    return collect(tiny_model(), QUESTIONS, PROMPTS, config, folder, "concise", chunk_size=7, progress=False)


def pretrain(folder):
    """Two hundred steps of a small model of the family, with a checkpoint every forty."""
    read_there = data.load_questions("facts", "train")[:100]
    start = pretraining.untrained(Shape(32, 1), read_there, folder, vocabulary=300)
    stage = Stage("pretrain", 200, 5e-3, n_questions=100, batch_size=2, lora_rank=0)
    base = models.load(str(start), "float32")
    return training.train(stage, base, read_there, semantics.canonical, folder, progress=False)


def _alone(work, folder):
    torch.set_num_threads(1)
    work(folder)


def kill_at_random_points(work, folder, points, longest, seed):
    """Start `work` in a process of its own and kill -9 it, again and again in one folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["calib_utils.training.lineage", "calib_utils.training.pretraining", "trl", "peft", "conftest"]
    )
    rng, killed = random.Random(seed), 0
    for _ in range(points):
        process = context.Process(target=_alone, args=(work, folder))
        process.start()
        process.join(rng.uniform(0.0, longest))
        killed += process.is_alive()
        process.kill()
        process.join()
    return killed


def test_records_survive_twenty_kills(tmp_path):
    undisturbed = gather(tmp_path / "a")
    killed = kill_at_random_points(gather, tmp_path / "b", points=20, longest=1.0, seed=0)
    assert killed >= 15
    kept = {record.key: record for record in read(tmp_path / "b")} if (tmp_path / "b").exists() else {}
    assert gather(tmp_path / "b") == undisturbed
    assert all(record in undisturbed for record in kept.values())
    for side in "ab":
        assert len(list((tmp_path / side).rglob("*.parquet"))) == len(QUESTIONS) / 7


def test_training_survives_twenty_kills(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        undisturbed = pretrain(tmp_path / "a").load()
        assert kill_at_random_points(pretrain, tmp_path / "b", points=20, longest=4.0, seed=1) >= 10
        resumed = pretrain(tmp_path / "b").load()
    finally:
        torch.set_num_threads(threads)
    pairs = zip(undisturbed.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_full_disk_is_named_and_what_is_there_stays(tmp_path):
    """A limit on the size of files stands for the disk: the system refuses the write in the same place."""
    before = collect(
        tiny_model(), QUESTIONS[:7], PROMPTS[:7], SamplingConfig(20, 1.0, 3, ("#",)), tmp_path, "concise"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RecordError, match=rf"cannot write [\s\S]*{os.strerror(errno.EFBIG)}[\s\S]*free space"):
            gather(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {record.key for record in read(tmp_path)} == {record.key for record in before}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot write [\s\S]*file[\s\S]*choose another folder"):
        gather(tmp_path / "file" / "records")
    with pytest.raises(RecordError, match="cannot write"):
        records.cached_table(tmp_path / "file", "x", tiny_model(), [], lambda: pd.DataFrame({"a": [1]}))


@pytest.mark.parametrize("limit", [1000, 20_000, 100_000])  # refused to the trainer, to safetensors, to torch.save
def test_training_names_a_full_disk_and_goes_on_when_there_is_room(limit, tmp_path):
    questions = data.load_questions("facts", "train")[:100]
    start = pretraining.untrained(Shape(32, 1), questions, tmp_path, vocabulary=300)

    def fit():
        stage = Stage("pretrain", 20, 5e-3, n_questions=100, batch_size=2, lora_rank=0)
        return training.train(
            stage, models.load(str(start), "float32"), questions, semantics.canonical, tmp_path, progress=False
        )

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(
            TrainingError, match=rf"cannot write {tmp_path}/pretrain-\w+\.work: [\s\S]*; free space or"
        ):
            fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert fit().finished


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_what_is_kept_for_later_has_the_modes_that_the_umask_gives(mask, file, folder, tmp_path):
    """Models at their start, stages, records and locks; the conversion of a model is in test_models."""
    questions = data.load_questions("facts", "train")[:100]
    with umask(mask):
        start = pretraining.untrained(Shape(32, 1), questions, tmp_path / "cache", vocabulary=300)
        stage = Stage("pretrain", 2, 5e-3, n_questions=100, batch_size=2, lora_rank=0)
        base = models.load(str(start), "float32")
        training.train(stage, base, questions, semantics.canonical, tmp_path / "cache", progress=False)
        gather(tmp_path / "cache" / "records")
    found = list((tmp_path / "cache").rglob("*"))
    assert {path.suffix for path in found} >= {".safetensors", ".json", ".parquet", ".lock"}
    modes = {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in found}
    assert modes == {(True, oct(folder)), (False, oct(file))}


def in_a_namespace(commands, folder):
    """Run shell commands as the superuser of a mount namespace of their own; skips where there can be none."""
    try:
        subprocess.run(["unshare", "--map-root-user", "--mount", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the system gives no mount namespace")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "CLONE": str(ROOT), "AT": str(folder)}
    words = ["unshare", "--map-root-user", "--mount", "sh", "-ec", commands]
    return subprocess.run(words, env=env, cwd="/", capture_output=True, text=True)


READ_ONLY = 'mount --bind "$CLONE" "$CLONE"; mount -o remount,bind,ro "$CLONE"; cd "$CLONE"; ! touch x 2> "$AT/no"; '
RUN = '"$PYTHON" -m calib_utils run --only 08 '


def test_a_clone_that_is_read_only_runs_into_folders_elsewhere(tmp_path):
    for name in ("f", "o", "r"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "figures" / "claims.csv", tmp_path / "f")
    done = in_a_namespace(READ_ONLY + RUN + '-p figures="$AT/f" -p runs="$AT/r" --output "$AT/o"', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "o" / "08_claims.ipynb").exists() and (tmp_path / "f" / "08_claims.png").exists()


def test_a_clone_that_is_read_only_is_told_of_with_the_folder_and_the_remedy(tmp_path):
    remedy = "Read-only file system; free space or choose another folder: --output, -p figures=FOLDER, -p runs=FOLDER"
    done = in_a_namespace(READ_ONLY + RUN, tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: cannot write {destination('cpu', {})[1]}: {remedy}\n")
    done = in_a_namespace(READ_ONLY + RUN + '--output "$AT/o"', tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: cannot write {ROOT / 'figures'}: {remedy}\nfailed: 08_claims\n"
    done = in_a_namespace(READ_ONLY + '"$PYTHON" -m calib_utils verify --only 08', tmp_path)
    said = f"error: cannot write {ROOT / 'runs' / 'verify'}: {remedy.partition(':')[0]}\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("what", ["o", "f"])
def test_a_disk_that_fills_up_is_told_of_with_the_file(what, tmp_path):
    for name in ("f", "o"):
        (tmp_path / name).mkdir()
    room = (ROOT / "figures" / "claims.csv").stat().st_size // 1024 + 16  # the table fits, no figure does
    full = f'mount -t tmpfs -o size={room}k tmpfs "$AT/{what}"; cp "$CLONE/figures/claims.csv" "$AT/f"; cd "$CLONE"; '
    done = in_a_namespace(full + RUN + '-p figures="$AT/f" --output "$AT/o"', tmp_path)
    assert "Traceback" not in done.stderr and "No space left on device; free space or choose another" in done.stderr
    assert f"cannot write {tmp_path / what}" in done.stderr and done.returncode in (1, 2)


def test_a_run_writes_its_folders_and_nothing_else(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {"HOME": home, "XDG_CACHE_HOME": home / ".cache", "TMPDIR": tmp_path / "scratch"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [
        nbformat.v4.new_code_cell("profile: str = 'cpu'  # help", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os; assert os.listdir('.') == ['figures']  # no sockets"),
        nbformat.v4.new_code_cell("from calib_utils.running import runner; runner.complete('99_fake')"),
    ]
    path = tmp_path / "99_fake.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), path)
    monkeypatch.setattr(runner, "profile_parameters", lambda profile, _, declared: {"profile": profile})
    monkeypatch.setattr(runner, "ROOT", tmp_path / "root")
    (tmp_path / "root").mkdir()
    runner.run(path, "cpu", {}, tmp_path / "out")
    found = [file for file in tmp_path.rglob("*") if not file.is_dir()]  # sockets too
    outside = [file for file in found if file.is_relative_to(home) and ".cache" not in file.parts]
    assert outside == []
    assert {file.relative_to(tmp_path).parts[0] for file in found} - {"home"} == {"99_fake.ipynb", "out", "root"}
    assert {file.relative_to(tmp_path / "root").parts[0] for file in found if "root" in file.parts} == {"figures"}
