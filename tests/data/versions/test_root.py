"""params.yaml with another data set, and otherwise as it was."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mis.data.versions.root import check_name, set_root
from mis.errors import MisError
from mis.params.load import load_params

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def params(tmp_path):
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    return tmp_path / "params.yaml"


def test_one_line_changes_and_keeps_its_comment(params):
    before = params.read_text().splitlines()
    assert set_root(params, "data/raw/Task01_BrainTumour")
    after = params.read_text().splitlines()
    ((old, new),) = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert new == old.replace(load_params(PARAMS).data.root, "data/raw/Task01_BrainTumour")
    assert load_params(params).data.root == "data/raw/Task01_BrainTumour"


def test_the_same_value_again_leaves_the_file_alone(params):
    set_root(params, "data/raw/a")
    before = params.stat()
    assert not set_root(params, "data/raw/a")
    assert (params.stat().st_mtime_ns, params.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_there_and_back_is_the_same_file(params):
    before = params.read_bytes()
    set_root(params, "data/raw/a")
    set_root(params, load_params(PARAMS).data.root)
    assert params.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "data:\n  root: old # why\n  fit: pad\n",
        "data:\n  root: 'old' # why\n  fit: pad\n",
        'data:\r\n  root: "old" # why\r\n  fit: pad\r\n',
        "data: {root: old, fit: pad} # why\n",
        "data: {fit: pad, root: old} # why\n",
        "# why\ndata:\n  fit: pad\n  root: old",
        "other: {root: old} # why\ndata:\n  root: >-\n    old\n  fit: pad\n",
    ],
)
@pytest.mark.parametrize(
    "root", ["data/raw/a", "data/raw/my data: the 2nd #3, {x}", 'data/raw/"quoted"', "data/raw/\u00e4"]
)
def test_it_is_set_however_the_file_is_written(tmp_path, text, root):
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    set_root(path, root)
    tree = YAML(typ="safe").load(path.read_bytes())
    assert tree["data"] == {"root": root, "fit": "pad"}
    assert b"# why" in path.read_bytes()
    assert path.read_bytes().count(b"\r") == text.count("\r")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "must exist"),
        ("a: [", "must be YAML"),
        ("", "must have data.root"),
        ("data: x", "must have data.root"),
        ("data: {}", "must have data.root"),
        ("- data", "must have data.root"),
    ],
)
def test_a_file_without_it_is_said(tmp_path, text, says):
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(MisError, match=says):
        set_root(tmp_path / "params.yaml", "data/raw/a")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "phantom"])
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(MisError, match="a data set"):
        check_name(name)
