"""How many threads a process computes with: affinity, limits of control groups, load, and what the user says."""

import os
import subprocess
import sys

import pytest

from calib_utils.home import ROOT
from calib_utils.models import threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight processors, two of them on every core, that runs this process on the first six."""
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "_allowed", lambda: set(range(6)))
    monkeypatch.setattr(threads.time, "sleep", lambda _: None)
    for one in range(8):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{one}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{one // 2 * 2}-{one // 2 * 2 + 1}\n")
    return tmp_path


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def busy(monkeypatch, *shares):
    """Let the processors be busy for these shares of the time that is watched; the last two are not ours."""
    looks = iter([[0] * 8, [round(100 * share) for share in shares]])

    def read(path):
        if path.name != "stat":
            return before(path)
        now = next(looks)
        rows = (f"cpu{i} {ticks} 0 0 {100 * bool(sum(now)) - ticks} 0 0 0 0 0 0" for i, ticks in enumerate(now))
        return "\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *rows, "ctxt 1"])

    before = threads._read
    monkeypatch.setattr(threads, "_read", read)


def test_two_processors_of_one_core_are_one_core(machine):
    assert threads.cores(machine) == 3


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2),  # of a group around it
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),  # half a core
        (
            {
                "proc/self/cgroup": "9:cpuset:/\n4:cpu,cpuacct:/a\n0::/\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
    ],
)
def test_the_limit_of_a_container_counts(files, expected, machine):
    for name, text in files.items():
        put(machine / name, text)
    assert threads.cores(machine) == expected


@pytest.mark.parametrize(
    "shares, expected, because",
    [
        ((0, 0, 0, 0, 0, 0, 1, 1), 3, "every core that it may use"),  # what is not ours may be busy
        ((0.5, 0.1, 0, 0, 0, 0, 0, 0), 3, "every core that it may use"),
        ((1, 1, 0, 0, 0, 0, 0, 0), 2, "2.0 cores are idle of 3 that it may use"),
        ((1, 1, 1, 1, 1, 1, 0, 0), 1, "0.0 cores are idle of 3 that it may use"),
    ],
)
def test_busy_cores_are_left_to_others_and_one_thread_is_the_least(shares, expected, because, machine, monkeypatch):
    busy(monkeypatch, *shares)
    assert threads.choose(root=machine) == (expected, because)


def test_several_jobs_share_the_cores_whatever_the_load(machine, monkeypatch):
    busy(monkeypatch, *[1] * 8)
    assert [threads.choose(jobs, machine).threads for jobs in (2, 3, 9)] == [1, 1, 1]
    monkeypatch.setattr(threads, "_allowed", lambda: set(range(8)))
    assert threads.choose(2, machine) == (2, "4 cores for 2 notebooks")


def test_the_user_decides(machine, monkeypatch):
    monkeypatch.setenv(threads.VARIABLE, "7")
    assert threads.choose(3, machine) == (7, "OMP_NUM_THREADS")


def test_a_system_that_tells_nothing_gives_every_core(monkeypatch, tmp_path):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "_allowed", set)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    assert threads.choose(root=tmp_path) == (4, "every core that it may use")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_a_loaded_model_computes_on_the_cores_of_its_process():
    program = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from calib_utils.models import threads; import sys; assert 'torch' not in sys.modules\n"
        "import torch; torch.set_num_threads(4); threads.settle(); print(torch.get_num_threads())"
    )
    env = {name: value for name, value in os.environ.items() if name != threads.VARIABLE}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")
