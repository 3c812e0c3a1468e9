import subprocess
import sys

import psutil
import pytest

from mis.machine.limits import core_quota, memory, open_files

GIB = 2**30


@pytest.fixture
def groups(tmp_path):
    """Write files of control groups, and return their root and the file that names those of a process."""

    def write(own, files):
        root, named = tmp_path / "cgroup", tmp_path / "own"
        named.write_text(own)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root, named

    return write


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2.0),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("4:cpu,cpuacct:/\n1:memory:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("", {}, None),
    ],
)
def test_the_quota_is_the_least_of_all_groups_above(groups, own, files, quota):
    assert core_quota(*groups(own, files)) == quota


def test_the_memory_of_a_container_is_its_own_and_cached_files_are_free(groups):
    files = {
        "memory.max": f"{GIB}\n",
        "memory.current": f"{GIB // 2}\n",
        "memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
    }
    assert memory(*groups("0::/\n", files)) == (GIB, 3 * GIB // 4)


def test_without_a_limit_the_memory_is_the_machines(groups):
    total = psutil.virtual_memory().total
    first = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "5\n"}
    assert memory(*groups("8:memory:/\n", first))[0] == total
    assert memory(*groups("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}))[0] == total


def test_the_limit_of_open_files_is_that_of_the_process():
    source = "import resource; from mis.machine.limits import open_files; "
    source += "resource.setrlimit(resource.RLIMIT_NOFILE, (700, 900)); print(open_files())"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(700, 900)"
    soft, hard = open_files()
    assert 0 < soft <= hard
