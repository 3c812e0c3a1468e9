"""What the tests of whole trainings share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, records):
    """A folder with parameters and the tiny records, as `python -m mis.train` finds them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "records").symlink_to(records.folder)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path
