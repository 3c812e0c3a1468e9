"""Real tar files, good and bad ones."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from mis.data.versions.archive import BrokenArchiveError, Unpacked, unpack
from mis.errors import MisError


def member(name, content=b"x", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def make(path, *members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def noise(size):
    return np.random.default_rng(0).bytes(size)


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


CONTENT = {
    "dataset.json": b"{}",
    "imagesTr/a.nii.gz": noise(70_000),
    "imagesTr/b.nii.gz": b"",
    f"deep/{'er' * 20}/c": b"c",
}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("top", ["", "./", "Task01_BrainTumour/", "./Task01_BrainTumour/", f"{'long' * 20}/"])
def test_what_comes_out_is_what_went_in_without_the_top_folder(tmp_path, folder, mode, form, top):
    with tarfile.open(tmp_path / "a.tar", mode, format=form) as archive:
        for name, content in CONTENT.items():
            info, _ = member(f"{top}{name}", content, mode=0o000)
            archive.addfile(info, io.BytesIO(content))
    assert unpack(tmp_path / "a.tar", folder, progress=False) == Unpacked(files=4, left_out=0)
    assert files_in(folder) == CONTENT


def test_a_folder_in_the_top_folder_may_have_its_name(tmp_path, folder):
    archive = make(tmp_path / "a.tar", member("Task01/Task01/x"), member("Task01/y"))
    unpack(archive, folder, progress=False)
    assert set(files_in(folder)) == {"Task01/x", "y"}


def test_one_file_is_no_top_folder(tmp_path, folder):
    unpack(make(tmp_path / "a.tar", member("only")), folder, progress=False)
    assert files_in(folder) == {"only": b"x"}


def test_what_macos_adds_is_left_out_and_counted(tmp_path, folder):
    archive = make(
        tmp_path / "a.tar",
        member("._Task01"),
        member("Task01/", b"", type=tarfile.DIRTYPE),
        member("Task01/._dataset.json"),
        member("Task01/dataset.json"),
        member("Task01/imagesTr/._BRATS_001.nii.gz"),
        member("Task01/imagesTr/.DS_Store"),
        member("__MACOSX/", b"", type=tarfile.DIRTYPE),
        member("__MACOSX/Task01/x"),
    )
    assert unpack(archive, folder, progress=False) == Unpacked(files=1, left_out=5)
    assert set(files_in(folder)) == {"dataset.json"}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (member("../x"), "stay in its folder"),
        (member("a/../../x"), "stay in its folder"),
        (member("a/.."), "stay in its folder"),
        (member("/srv/x"), "stay in its folder"),
        (member("..", b"", type=tarfile.DIRTYPE), "stay in its folder"),
        (member("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a symbolic link, 'a'"),
        (member("a", b"", type=tarfile.LNKTYPE, linkname="first"), "a hard link, 'a'"),
        (member("a", b"", type=tarfile.CHRTYPE), "a device or the like, 'a'"),
        (member("a", b"", type=tarfile.FIFOTYPE), "a device or the like, 'a'"),
        (member("first"), "each name once"),
        (member("first", b"", type=tarfile.DIRTYPE), "each name once"),
        (member("first/below"), "each name once"),
        (member("x" * 300), "File name too long"),
    ],
)
def test_what_is_no_plain_file_or_leads_out_is_refused_in_a_line(tmp_path, folder, bad, says):
    archive = make(tmp_path / "a.tar", member("first"), bad)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MisError, match=says) as caught:
        unpack(archive, folder, progress=False)
    assert not isinstance(caught.value, BrokenArchiveError)
    assert sorted(tmp_path.iterdir()) == before
    assert set(files_in(folder)) <= {"first"}


def test_a_link_that_leads_out_is_not_followed(tmp_path, folder):
    archive = make(
        tmp_path / "a.tar", member("out", b"", type=tarfile.SYMTYPE, linkname=str(tmp_path)), member("out/x")
    )
    with pytest.raises(MisError, match="symbolic link"):
        unpack(archive, folder, progress=False)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9])
def test_a_part_of_an_archive_is_noticed(tmp_path, folder, mode, share):
    whole = make(tmp_path / "a.tar", *(member(f"f{n}", noise(20_000)) for n in range(9)), mode=mode).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BrokenArchiveError, match="must be a whole tar file"):
        unpack(tmp_path / "a.tar", folder, progress=False)


def test_an_archive_that_ends_between_two_files_is_noticed(tmp_path, folder):
    archive = make(tmp_path / "a.tar", member("a", b"x" * 512), member("b", b"y" * 512))
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(BrokenArchiveError, match="ends early"):
        unpack(archive, folder, progress=False)


def test_damage_in_the_middle_is_noticed(tmp_path, folder):
    """Where it meets a header that makes no sense, Python's tarfile takes it for the end."""
    archive = make(tmp_path / "a.tar", member("a", b"x" * 512), member("b", b"y" * 512), member("c", b"z" * 512))
    damaged = bytearray(archive.read_bytes())
    damaged[1024:1100] = b"?" * 76
    archive.write_bytes(damaged)
    with pytest.raises(BrokenArchiveError, match="damaged"):
        unpack(archive, folder, progress=False)


def test_damage_that_only_the_check_sum_shows_is_noticed(tmp_path, folder):
    archive = make(tmp_path / "a.tar", *(member(f"f{n}", noise(20_000)) for n in range(9)), mode="w:gz")
    packed = archive.read_bytes()
    archive.write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    with pytest.raises(BrokenArchiveError, match="whole tar file"):
        unpack(archive, folder, progress=False)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>" * 100, bytes(10240), gzip.compress(b"text" * 999)],
    ids=["nothing", "a page", "zeros", "no tar in it"],
)
def test_what_is_no_archive_is_said(tmp_path, folder, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(BrokenArchiveError, match=r"a\.tar must"):
        unpack(tmp_path / "a.tar", folder, progress=False)


def test_progress_ends_at_the_whole_file(tmp_path, folder, capsys):
    unpack(make(tmp_path / "a.tar", member("a", noise(50_000))), folder)
    assert "100%" in capsys.readouterr().err
