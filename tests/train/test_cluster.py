"""A Ray cluster of this machine's own: started, and what is said where it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from mis.train.cluster import cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ray_starts(monkeypatch):
    """Let Ray start only after so many attempts; return the attempts."""
    import ray

    attempts = []

    def fail(times, error):
        def start(**arguments):
            attempts.append(arguments)
            if len(attempts) <= times:
                raise error

        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", start)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(ray, "nodes", list)
        return attempts

    return fail


def test_a_start_that_was_too_slow_is_tried_once_more(ray_starts, capsys):
    attempts = ray_starts(1, Exception("The current node timed out during startup.\nmore"))
    with cluster(None) as nodes:
        assert list(nodes) == []
    assert len(attempts) == 2
    assert capsys.readouterr().err == "Ray did not start (The current node timed out during startup.): once more\n"


def test_one_that_fails_again_is_raised(ray_starts):
    attempts = ray_starts(9, Exception("The current node timed out during startup."))
    with pytest.raises(Exception, match="timed out during startup"), cluster(None):
        pass
    assert len(attempts) == 2


@pytest.mark.slow
def test_a_folder_with_too_long_a_name_is_refused_in_one_line(tmp_path):
    folder = tmp_path / ("a" * 90)
    folder.mkdir()
    source = "import sys; from mis.cli import exit_code; from mis.train.cluster import cluster\n"
    source += "def command():\n    with cluster(None): pass\nsys.exit(exit_code(command))"
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    says = f"error: the folder of temporary files must have a short name, as Ray has its sockets below it, got {folder}"
    assert says in done.stderr
    assert "Traceback" not in done.stderr
