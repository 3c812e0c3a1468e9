import csv
import json
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from mis.files import (
    DiskFullError,
    LineLog,
    copy_file,
    is_disk_full,
    new_file,
    new_folder,
    read_json,
    remove_folder,
    write_csv,
    write_json,
)
from tests.power import watched

# The process kills itself at the n-th time that the interpreter announces such a call: nothing of it has happened yet.
KILLED = """
import os, signal, sys
from pathlib import Path
from mis.files import new_file, new_folder

target, kind, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
events = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "open")
count = 0

def kill(event, arguments):
    global count
    if event in events and target.name in str(arguments[0]):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
if kind == "folder":
    with new_folder(target) as unfinished:
        (unfinished / "a").write_text("new")
        (unfinished / "b").write_text("new")
else:
    with new_file(target) as unfinished, unfinished.open("w") as file:
        file.write("n" * 100_000)
        file.flush()
        file.write("n" * 100_000)
"""


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def killed_at(number, target, kind):
    """Run until the n-th change on disk; return whether the process came so far."""
    done = subprocess.run([sys.executable, "-c", KILLED, target, kind, str(number)], check=False)
    assert done.returncode in {0, -signal.SIGKILL}
    return done.returncode != 0


def fail(context, error=RuntimeError):
    """Write new content and end with an error."""
    with context as unfinished:
        (unfinished / "a" if unfinished.is_dir() else unfinished).write_text("new")
        raise error


# ---- Folders ----


def test_a_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "folder"
    with new_folder(target) as unfinished:
        (unfinished / "a").write_text("new")
        assert not target.exists()
    assert contents(tmp_path) == {"deep/folder/a": "new"}


def test_a_folder_takes_the_place_of_the_old_one_and_nothing_of_that_stays(tmp_path):
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with new_folder(target) as unfinished:
            (unfinished / name).write_text(name)
    assert contents(tmp_path) == {"folder/new": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(error):
        fail(new_folder(target), error)
    assert contents(tmp_path) == {"folder/a": "old"}
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_no_folder_where_there_was_none(tmp_path):
    with pytest.raises(RuntimeError):
        fail(new_folder(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_process_killed_while_it_fills_a_folder_leaves_the_old_one(tmp_path, number):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("old")
    # Removing what was left over, making the folder, two files.
    assert killed_at(number, target, "folder")
    assert contents(target) == {"a": "old"}
    with new_folder(target) as unfinished:
        assert contents(unfinished) == {}
        (unfinished / "c").write_text("next")
    assert contents(tmp_path) == {"folder/c": "next"}


def test_a_process_killed_at_any_moment_leaves_no_mixture(tmp_path):
    old, new = {"a": "old"}, {"a": "new", "b": "new"}
    for number in range(1, 100):
        target = tmp_path / str(number) / "folder"
        target.mkdir(parents=True)
        (target / "a").write_text("old")
        killed = killed_at(number, target, "folder")
        # Not one call replaces a folder that is not empty: between two renames there is none, and its old content
        # lies beside it.
        found = contents(target) if target.exists() else contents(target.with_name(".folder.outdated"))
        assert found in (old, new), number
        if not killed:
            break
    assert number > 8
    assert contents(target.parent) == {f"folder/{name}": text for name, text in new.items()}


# ---- Files ----


def test_a_file_appears_when_the_block_ends_and_is_written_with_its_suffix(tmp_path):
    target = tmp_path / "deep" / "model.keras"
    with new_file(target) as unfinished:
        assert unfinished.suffix == ".keras"
        unfinished.write_text("new")
        assert not target.exists()
    assert contents(tmp_path) == {"deep/model.keras": "new"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        fail(new_file(target))
    assert contents(tmp_path) == {"file.txt": "old"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "file.txt"):
        pass


def test_a_process_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    for number in range(1, 20):
        target = tmp_path / str(number) / "file.txt"
        target.parent.mkdir()
        target.write_text("old")
        killed = killed_at(number, target, "file")
        assert target.read_text() == ("old" if killed and number <= 3 else "n" * 200_000), number
        if not killed:
            break
    assert number > 3


def test_a_copy_is_whole_and_takes_the_place_of_what_was_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(b"new")
    for _ in range(2):
        copy_file(source, target)
        assert contents(tmp_path) == {"source": "new", "deep/target": "new"}
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "none", target)
    assert contents(tmp_path) == {"source": "new", "deep/target": "new"}


# ---- What is deleted ----


def test_a_folder_that_is_deleted_is_never_found_by_half(tmp_path):
    deleted = """
import os, signal, sys
from pathlib import Path
from mis.files import remove_folder

target, last, count = Path(sys.argv[1]), int(sys.argv[2]), 0

def kill(event, arguments):
    global count
    if event in ("os.rename", "os.rmdir", "os.remove"):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
remove_folder(target)
"""
    whole = {"a": "old", "deep/b": "old"}
    for number in range(1, 20):
        target = tmp_path / str(number) / "folder"
        (target / "deep").mkdir(parents=True)
        for name, text in whole.items():
            (target / name).write_text(text)
        done = subprocess.run([sys.executable, "-c", deleted, target, str(number)], check=False)
        assert not target.exists() or contents(target) == whole, number
        if done.returncode == 0:
            break
        remove_folder(target)
        assert list(target.parent.iterdir()) == []
    assert number > 4


# ---- Lines ----


def test_lines_that_were_appended_together_are_found_together_or_not_at_all(tmp_path):
    path = tmp_path / "log"
    log = LineLog(path)
    log.append(["first"])
    log.append(["second", "third", "fourth"])
    whole = path.read_bytes()
    groups = [["first"], ["first", "second", "third", "fourth"]]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        found = LineLog(path).read()
        assert found == (groups[1] if size == len(whole) else groups[0] if size >= len(b"first\n") else [])
        again = LineLog(path)
        again.append(["next"])
        assert LineLog(path).read() == again.read() == [*found, "next"]


def test_a_full_disk_leaves_the_lines_as_they_were(full_disk):
    log = LineLog(full_disk / "log")
    log.append(["first"])
    with pytest.raises(DiskFullError, match=f"space on the disk of {full_disk}") as caught:
        log.append(["x" * 2**22])
    assert is_disk_full(caught.value)
    assert LineLog(full_disk / "log").read() == log.read() == ["first"]
    log.append(["second"])
    assert LineLog(full_disk / "log").read() == ["first", "second"]


def test_a_full_disk_leaves_files_and_folders_as_they_were(full_disk):
    write_json(full_disk / "file.json", 1)
    with new_folder(full_disk / "folder") as unfinished:
        (unfinished / "a").write_text("old")
    before = contents(full_disk)
    with pytest.raises(DiskFullError, match="make space"):
        write_json(full_disk / "file.json", ["x" * 2**22])
    with pytest.raises(DiskFullError, match="make space"), new_folder(full_disk / "folder") as unfinished:
        (unfinished / "a").write_text("x" * 2**22)
    assert contents(full_disk) == before


# ---- A loss of power ----


def test_a_loss_of_power_leaves_the_old_or_the_new_content_and_never_another(tmp_path):
    root, left = tmp_path / "root", tmp_path / "left"
    root.mkdir()
    log = LineLog(root / "log")
    done = 0
    with watched(root) as disk:
        for number in range(3):
            write_json(root / "file.json", {"number": number})
            with new_folder(root / "folder") as unfinished:
                for name in ("a", "b"):
                    (unfinished / name).write_text(str(number))
            log.append([f"{number}", f"{number} and more"])
            done = len(disk.states)
        remove_folder(root / "folder")
    assert len(disk.states) > done > 40
    for _ in disk.restore(left):
        if (left / "file.json").exists():
            assert read_json(left / "file.json")["number"] in range(3)
        with suppress(FileNotFoundError), new_folder(left / "folder"):  # puts back the old one between two renames
            raise FileNotFoundError
        if (left / "folder").exists():
            assert contents(left / "folder") in [{"a": str(number), "b": str(number)} for number in range(3)]
        lines = LineLog(left / "log").read()
        assert lines == [text for number in range(3) for text in (f"{number}", f"{number} and more")][: len(lines)]
        assert len(lines) % 2 == 0
    # What is said to be written is there.
    with watched(root) as disk:
        write_json(root / "file.json", {"number": 9})
        log.append(["last"])
        disk.states.clear()
        disk.look()
    for _ in disk.restore(left):
        assert read_json(left / "file.json") == {"number": 9}
        assert LineLog(left / "log").read()[-1] == "last"


# ---- Formats ----


def test_json_ends_with_a_line_break_and_comes_back(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"ä": True}}
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == read_json(tmp_path / "file.json") == content
    assert list(json.loads(text)) == ["b", "a"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"a": object()})
    assert contents(tmp_path) == {"file.json": "1\n"}


def test_csv_has_all_keys_in_the_order_of_their_first_appearance(tmp_path):
    write_csv(tmp_path / "file.csv", [{"b": 1, "a": "x,y"}, {"c": 0.5, "a": None}])
    with (tmp_path / "file.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["b", "a", "c"], ["1", "x,y", ""], ["", "", "0.5"]]


@pytest.mark.parametrize("most_bytes", [1, 3, 7, 1000])
def test_lines_are_read_a_part_at_a_time_while_others_are_appended(tmp_path, most_bytes):
    log, found, position = LineLog(tmp_path / "log"), [], 0
    assert log.read_from(0, most_bytes) == ([], 0)
    for number in range(5):
        log.append([f"a{number}", f"ü{number} " * number, "c"])
        while (part := log.read_from(position, most_bytes))[0]:
            lines, position = part
            found += lines
    assert found == log.read() == LineLog(tmp_path / "log").read()


def test_what_a_killed_process_has_left_half_is_not_read_in_parts_either(tmp_path):
    log = LineLog(tmp_path / "log")
    log.append(["whole"])
    with (tmp_path / "log").open("ab") as file:
        file.write(b"first of two \nhal")
    assert LineLog(tmp_path / "log").read_from(0, 1000) == (["whole"], 6)


def test_lines_that_take_the_place_of_others_can_be_appended_to(tmp_path):
    log = LineLog(tmp_path / "log")
    log.append(["a", "b", "c"])
    log.replace(["x"])
    log.append(["y"])
    assert log.read() == ["x", "y"]


def test_what_another_thread_has_read_of_the_old_lines_cuts_off_none_of_the_new(tmp_path, monkeypatch):
    """The reader is held up, if it reads the file to know its size, until a line was appended."""
    log = LineLog(tmp_path / "log")
    log.append(["a", "b"])
    log.replace(["x"])
    read_bytes, goes_on = Path.read_bytes, threading.Event()
    held_up = queue.Queue()

    def late(path):
        content = read_bytes(path)
        if threading.current_thread() is reader:
            held_up.put(True)
            goes_on.wait()
        return content

    def read():
        log.read_from(2, 1000)
        held_up.put(False)

    reader = threading.Thread(target=read)
    monkeypatch.setattr(Path, "read_bytes", late)
    reader.start()
    held_up.get(timeout=60)
    log.append(["one"])
    goes_on.set()
    reader.join()
    log.append(["two"])
    assert log.read() == ["x", "one", "two"]


def test_a_line_that_is_no_text_is_named(tmp_path):
    log = LineLog(tmp_path / "log")
    log.append(["a", "b"])
    with (tmp_path / "log").open("ab") as file:
        file.write(b"\xff\xfe\x80\nd\n")
    for read in (LineLog(log.path).read, lambda: LineLog(log.path).read_from(0, 1000)):
        with pytest.raises(ValueError, match=r"log must be UTF-8, got other bytes in line 3"):
            read()
