"""Several notebooks at once: order, limits, failures, stopping, progress. The commands are small Python programs."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise

import pytest

from calib_utils.home import ROOT
from calib_utils.models import threads
from calib_utils.running import batch, cli, manifest, runner
from calib_utils.running.batch import Job


def job(name, code):
    return Job(name, [sys.executable, "-c", code])


def note(path, name, seconds=0.3):
    """Writes when it began and ended."""
    line = f"open({str(path)!r}, 'a').write(f'{name} {{a}} {{time.monotonic()}}\\n')"
    return f"import time; a = time.monotonic(); time.sleep({seconds}); {line}"


def spans(path):
    return {name: (float(a), float(b)) for name, a, b in (line.split() for line in path.read_text().splitlines())}


def test_a_notebook_waits_for_what_it_shares_with(tmp_path):
    log = tmp_path / "log"
    names = ["00_quickstart", "04_catto", "08_claims", "03_cot_degradation", "02_rl_degradation"]
    assert batch.run([job(name, note(log, name)) for name in names], jobs=3) == []
    found = spans(log)
    assert found["04_catto"][0] > found["02_rl_degradation"][1]
    assert found["08_claims"][0] > max(end for name, (_, end) in found.items() if name[:2] not in ("00", "08"))
    assert found["00_quickstart"][0] > found["08_claims"][1]
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
    program = "from calib_utils.running import batch\n"
    program += f"batch.run([batch.Job('01_a', [{sys.executable!r}, '-c', {child!r}])], 1)\n"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (mark.exists() and mark.read_text()):
        time.sleep(0.05)
    process.send_signal(how)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_several_notebooks_get_an_equal_share_of_the_cores_unless_the_user_says(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "cores", lambda _: 8)
    assert threads.VARIABLE not in batch.environment(1) and batch.environment(3)[threads.VARIABLE] == "2"
    monkeypatch.setenv(threads.VARIABLE, "5")
    assert batch.environment(1)[threads.VARIABLE] == batch.environment(3)[threads.VARIABLE] == "5"


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


def test_a_gpu_stays_taken_until_its_notebook_has_ended_even_when_the_run_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_UTILS_CACHE", str(tmp_path))
    mark = tmp_path / "mark"
    child = f"import time; open({str(mark)!r}, 'w').write(str(__import__('os').getpid())); time.sleep(60)"
    program = "from calib_utils.running import batch\n"
    program += f"job = batch.Job('01_a', [{sys.executable!r}, '-c', {child!r}])\n"
    process = subprocess.Popen([sys.executable, "-c", program + "batch.run([job], 1, ['3', '5'])"], cwd=ROOT)
    while not (mark.exists() and mark.read_text()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    name, lock = batch.pin(["3", "5"], 0)
    assert name == "5"  # the child of this test does not watch its parent: it computes on
    os.close(lock)
    os.kill(int(mark.read_text()), signal.SIGKILL)
    until = time.monotonic() + 10
    while (found := batch.pin(["3", "5"], 0))[0] != "3":
        os.close(found[1])
        assert time.monotonic() < until
        time.sleep(0.05)
    os.close(found[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can act as another user")
def test_users_of_one_cache_lock_each_others_gpus(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setenv("CALIB_UTILS_CACHE", folder)
        _, lock = batch.pin(["3", "5"], 0)  # leaves a file that another user can read only
        os.seteuid(65534)
        try:
            assert batch.pin(["3", "5"], 0) == ("3", None)  # taken, and no other file can be made here
            os.close(lock)
            name, lock = batch.pin(["3", "5"], 1)
            assert name == "3" and lock is not None
            os.close(lock)
        finally:
            os.seteuid(0)


def test_the_first_line_tells_device_and_dtype(monkeypatch):
    slow = (
        "computing on cpu in float32: this processor has no bfloat16 instructions; expect 2 to 3 times the time, "
        "and more memory"
    )
    for native, line in ((True, "computing on cpu in bfloat16"), (False, slow)):
        monkeypatch.setattr(manifest, "native_bfloat16", lambda native=native: native)
        assert cli._place("auto", "auto", []) == cli._place("cpu", "auto", []) == line
        assert cli._place("auto", "auto", ["0"]) == "computing on cuda in bfloat16"
        assert cli._place("cuda:1", "float16", []) == "computing on cuda:1 in float16"
        assert cli._place("auto", "float32", []) == "computing on cpu in float32"
        assert cli._place("mps", "auto", []) == "computing on mps in float32"


def test_more_notebooks_than_gpus_share_them_and_one_gpu_is_not_pinned(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_UTILS_CACHE", str(tmp_path))
    locks = [batch.pin(["3", "5"], 0) for _ in range(2)]
    assert [name for name, _ in locks] == ["3", "5"]
    assert [batch.pin(["3", "5"], turn) for turn in (2, 3)] == [("3", None), ("5", None)]
    assert batch.pin(["3"], 0) == batch.pin([], 1) == (None, None)
    assert "CUDA_VISIBLE_DEVICES" not in set(batch.environment(1)) - set(os.environ)


@pytest.mark.parametrize(("how", "jobs"), [("from cache", 2), ("anew", 1)])
def test_two_at_once_only_where_nothing_is_computed(tmp_path, monkeypatch, capsys, how, jobs):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    plans = iter([runner.Plan("from cache", 9.0, {}), runner.Plan(how, 9.0, {})])
    monkeypatch.setattr(runner, "plan", lambda *_: next(plans))
    found = []
    monkeypatch.setattr(batch, "run", lambda pending, at_once, *_: found.append((len(pending), at_once)) or [])
    assert cli.main(["run", "--only", "01", "03", "--profile", "smoke", "--output", str(tmp_path)]) == 0
    assert found == [(2, jobs)]
    assert capsys.readouterr().out.startswith("computing on cpu in ") is (how == "anew")


def test_a_run_whose_notebook_met_wrong_input_ends_with_2(tmp_path, monkeypatch, capsys):
    for status, expected in ((2, 2), (1, 1), (-9, 1)):
        code = f"import os; os.kill(os.getpid(), 9) if {status} < 0 else os._exit({status})"
        monkeypatch.setattr(batch, "command", lambda *_, code=code: [sys.executable, "-c", code])
        assert cli.main(["run", "--only", "01", "--output", str(tmp_path)]) == expected
        assert capsys.readouterr().err.startswith("failed: 01_")


def test_overrides_survive_the_command_line(tmp_path):
    path = runner.find_notebooks(["01"])[0]
    given = {"n_questions": 3, "model": "a b", "m_values": [2, 5], "chat": True}
    words = batch.command(path, "smoke", given)
    assert runner.parse_overrides([words[i + 1] for i, word in enumerate(words) if word == "-p"]) == given
