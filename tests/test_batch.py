"""Several notebooks at once: order, limits, failures, stopping, progress. The commands are small Python programs."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from calib_utils import batch, cli, runner
from calib_utils.batch import Job
from calib_utils.config import ROOT


def job(name, code, expected=None):
    return Job(name, [sys.executable, "-c", code], expected)


def note(path, name, seconds=0.3):
    """Writes when it began and ended."""
    line = f"open({str(path)!r}, 'a').write(f'{name} {{a}} {{time.monotonic()}}\\n')"
    return f"import time; a = time.monotonic(); time.sleep({seconds}); {line}"


def spans(path):
    return {name: (float(a), float(b)) for name, a, b in (line.split() for line in path.read_text().splitlines())}


def test_a_notebook_waits_for_what_it_shares_with(tmp_path):
    log = tmp_path / "log"
    names = ["04_catto", "08_claims", "03_cot_degradation", "02_rl_degradation"]
    assert batch.run([job(name, note(log, name)) for name in names], jobs=3) == []
    found = spans(log)
    assert found["04_catto"][0] > found["02_rl_degradation"][1]
    assert found["08_claims"][0] > max(end for name, (_, end) in found.items() if name != "08_claims")
    assert found["03_cot_degradation"][0] < found["02_rl_degradation"][1]  # at the same time


def test_no_more_at_once_than_asked_for(tmp_path):
    log = tmp_path / "log"
    assert batch.run([job(name, note(log, name)) for name in ("01_a", "03_b", "05_c")], jobs=1) == []
    edges = sorted(spans(log).values())
    assert all(first[1] <= second[0] for first, second in pairwise(edges))


def test_a_failure_is_named_and_stops_no_other(tmp_path):
    log = tmp_path / "log"
    jobs = [job("02_rl_degradation", "raise SystemExit(1)"), job("04_catto", note(log, "04_catto"))]
    assert batch.run(jobs, jobs=1) == ["02_rl_degradation"]
    assert list(spans(log)) == ["04_catto"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopping_ends_the_running_ones_too(tmp_path, how):
    mark = tmp_path / "mark"
    child = f"import time; open({str(mark)!r}, 'w').write(str(__import__('os').getpid())); time.sleep(60)"
    program = (
        f"from calib_utils import batch\nbatch.run([batch.Job('01_a', [{sys.executable!r}, '-c', {child!r}])], 1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (mark.exists() and mark.read_text()):
        time.sleep(0.05)
    process.send_signal(how)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_progress_tells_the_time_left():
    running, waiting = [Job("01_a", [], 100.0, began=40.0)], [Job("03_b", [], 200.0)]
    assert batch.progress(waiting, running, 1, 70.0) == "01_a 0:30 of 1:40; 1 waiting; 4:30 left"
    assert batch.progress([Job("05_c", [])], running, 1, 70.0) == "01_a 0:30 of 1:40; 1 waiting; ? left"


def test_gpus_are_named_as_they_are_visible(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert batch.devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert batch.devices() == ["3", "5"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert batch.devices() == []


@pytest.mark.parametrize(("taken", "given"), [((), {"3", "5"}), (("3",), {"5", "7"})])
def test_every_notebook_gets_a_gpu_that_no_other_run_has(tmp_path, monkeypatch, taken, given):
    monkeypatch.setenv("CALIB_UTILS_CACHE", str(tmp_path / "cache"))
    others = [batch.pin([name, "9"], 0) for name in taken]  # of another run
    code = f"import os, time; open(os.path.join({str(tmp_path)!r}, os.environ['CUDA_VISIBLE_DEVICES']), 'w'); "
    code += "time.sleep(0.5)"
    assert batch.run([job("01_a", code), job("03_b", code)], 2, ["3", "5", "7"]) == []
    assert {path.name for path in tmp_path.iterdir()} == {"cache", *given}
    assert batch.pin(["3", "5", "7"], 0)[0] == ("5" if others else "3")


def test_more_notebooks_than_gpus_share_them_and_one_gpu_is_not_pinned(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_UTILS_CACHE", str(tmp_path))
    locks = [batch.pin(["3", "5"], 0) for _ in range(2)]
    assert [name for name, _ in locks] == ["3", "5"]
    assert [batch.pin(["3", "5"], turn) for turn in (2, 3)] == [("3", None), ("5", None)]
    assert batch.pin(["3"], 0) == batch.pin([], 1) == (None, None)
    assert "CUDA_VISIBLE_DEVICES" not in set(batch.environment(1)) - set(os.environ)


@pytest.mark.parametrize(("how", "jobs"), [("from cache", 2), ("anew", 1)])
def test_two_at_once_only_where_nothing_is_computed(monkeypatch, how, jobs):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    plans = iter([runner.Plan("from cache", 9.0, {}), runner.Plan(how, 9.0, {})])
    monkeypatch.setattr(runner, "plan", lambda *_: next(plans))
    found = []
    monkeypatch.setattr(batch, "run", lambda pending, at_once, *_: found.append((len(pending), at_once)) or [])
    assert cli.main(["run", "--only", "01", "03", "--profile", "smoke"]) == 0
    assert found == [(2, jobs)]


def test_overrides_survive_the_command_line(tmp_path):
    path = runner.find_notebooks(["01"])[0]
    given = {"n_questions": 3, "model": "a b", "temperatures": [0.5, 1.0], "chat": True}
    words = batch.command(path, "smoke", given)
    assert runner.parse_overrides([words[i + 1] for i, word in enumerate(words) if word == "-p"]) == given
