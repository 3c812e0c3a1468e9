import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mis.files
from mis.train import checkpoint
from mis.train.checkpoint import Checkpoints, best_epoch, is_finished, restore

scores = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def history(*dices):
    return [{"val/dice": dice, "train/loss": 1 - dice} for dice in dices]


def model(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    made = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    made.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    made.optimizer.build(made.trainable_variables)
    return made


def train(made, steps=1):
    rng = np.random.default_rng(0)
    for _ in range(steps):
        made.train_on_batch(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))


def state(made):
    return [np.asarray(variable) for variable in (*made.variables, *made.optimizer.variables)]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# ---- What follows from the history ----


@pytest.mark.parametrize(
    ("dices", "best"), [((0.1,), 1), ((0.1, 0.3, 0.2), 2), ((0.3, 0.3, 0.3), 1), ((0, 0, 0.1), 3), ((0.2, 0.1, 0.2), 1)]
)
def test_the_best_epoch_is_the_first_with_the_highest_dice(dices, best):
    assert best_epoch(history(*dices)) == best


@pytest.mark.parametrize(
    ("dices", "epochs", "patience", "finished"),
    [
        ((), 1, 1, False),
        ((0.1,), 1, 5, True),
        ((0.1, 0.2), 3, 1, False),
        ((0.2, 0.1), 9, 1, True),
        ((0.2, 0.1), 9, 2, False),
        ((0.2, 0.2, 0.2), 9, 2, True),  # as good is not better
        ((0.2, 0.1, 0.3, 0.1), 9, 2, False),
        ((0.1, 0.2, 0.3), 3, 9, True),
    ],
)
def test_a_training_ends_with_its_epochs_or_its_patience(dices, epochs, patience, finished):
    assert is_finished(history(*dices), epochs=epochs, patience=patience) is finished


@given(dices=scores, epochs=st.integers(1, 12), patience=st.integers(1, 5))
def test_more_epochs_or_patience_never_end_a_training_sooner(dices, epochs, patience):
    if not is_finished(history(*dices), epochs=epochs, patience=patience):
        assert not is_finished(history(*dices), epochs=epochs + 1, patience=patience)
        assert not is_finished(history(*dices), epochs=epochs, patience=patience + 1)


# ---- On disk ----


def test_there_is_nothing_before_the_first_epoch(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.newest() is None
    assert checkpoints.history() == []
    checkpoints.remove()


def test_what_is_restored_is_what_was_saved_and_goes_on_alike(tmp_path):
    made = model()
    train(made, 3)
    path = Checkpoints(tmp_path).save(made, history(0.1), improved=True)
    saved = state(made)
    other = model(seed=1)
    assert not same(state(other), saved)
    assert restore(other, path) == history(0.1)
    assert same(state(other), saved)
    train(made, 2)
    train(other, 2)
    assert same(state(other), state(made))


def test_the_newest_is_kept_and_the_one_before_it(tmp_path):
    checkpoints, made = Checkpoints(tmp_path), model()
    for number in range(1, 12):
        assert checkpoints.save(made, history(*range(number)), improved=True) == tmp_path / f"epoch-{number:04d}"
        kept = [f"epoch-{number:04d}" for number in (number - 1, number) if number]
        assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert checkpoints.history() == history(*range(11))


@pytest.mark.parametrize("name", ["last.npz", "best.keras", "history.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "gone"])
def test_what_cannot_be_read_is_set_aside_for_the_one_before(tmp_path, name, damage):
    checkpoints, made = Checkpoints(tmp_path), model()
    checkpoints.save(made, history(0.1), improved=True)
    kept = state(made)
    train(made)
    newest = checkpoints.save(made, history(0.1, 0.2), improved=True)
    assert checkpoints.set_aside_unreadable() == []
    file = newest / name
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        middle = len(content) // 2
        changed = (
            content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 40]) + content[middle + 40 :]
        )
        file.write_bytes({"empty": b"", "cut": content[:middle], "changed": changed}[damage])
    (line,) = checkpoints.set_aside_unreadable()
    assert line.startswith(f"checkpoint {newest} cannot be read")
    assert checkpoints.aside() == [tmp_path / ".epoch-0002.unreadable"]
    assert checkpoints.history() == history(0.1)
    other = model(seed=3)
    restore(other, checkpoints.newest())
    assert same(state(other), kept)
    checkpoints.save(other, history(0.1, 0.3), improved=True)
    assert checkpoints.history() == history(0.1, 0.3)


def test_where_no_checkpoint_is_left_that_is_said(tmp_path):
    checkpoints, made = Checkpoints(tmp_path), model()
    paths = [checkpoints.save(made, history(*dices), improved=True) for dices in ((0.1,), (0.1, 0.2))]
    for path in paths:
        (path / "last.npz").write_bytes(b"")
    newest, oldest = checkpoints.set_aside_unreadable()
    assert newest.startswith(f"checkpoint {paths[1]} cannot be read (")
    assert newest.endswith("): going on from the one before")
    assert oldest.startswith(f"checkpoint {paths[0]} cannot be read (")
    assert oldest.endswith("): no checkpoint is left that can be read: beginning again")


class Killed(BaseException):
    """The process is killed."""


def killed_while_it_deletes(write, monkeypatch):
    """Write something, and be killed when a folder that has been renamed is to be deleted."""
    delete = mis.files.shutil.rmtree

    def killed(path, **options):
        if str(path).endswith(".removed") and path.exists():
            raise Killed
        delete(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mis.files.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            write()


def test_what_a_kill_leaves_of_a_checkpoint_is_deleted(tmp_path, monkeypatch):
    checkpoints, made = Checkpoints(tmp_path), model()
    for number in (1, 2):
        checkpoints.save(made, history(*range(number)), improved=True)
    killed_while_it_deletes(lambda: checkpoints.save(made, history(*range(3)), improved=True), monkeypatch)
    assert (tmp_path / ".epoch-0001.removed").is_dir()
    assert Checkpoints(tmp_path, writes=False).set_aside_unreadable() == []
    assert (tmp_path / ".epoch-0001.removed").is_dir(), "another process than the writer deletes nothing"
    assert checkpoints.set_aside_unreadable() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002", "epoch-0003"]

    killed_while_it_deletes(lambda: checkpoints.save(made, history(*range(4)), improved=True), monkeypatch)
    for name in (".epoch-0005.unfinished", ".epoch-0004.outdated", ".epoch-0003.unreadable"):
        (tmp_path / name).mkdir()
    (tmp_path / "outcome.json").touch()
    checkpoints.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["outcome.json"]


def test_another_process_than_the_writer_renames_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.save(model(), history(0.1), improved=True)
    (newest / "last.npz").write_bytes(b"")
    assert len(Checkpoints(tmp_path, writes=False).set_aside_unreadable()) == 1
    assert newest.is_dir()


def test_a_checkpoint_holds_the_weights_the_best_model_and_the_history(tmp_path):
    path = Checkpoints(tmp_path).save(model(), history(0.5), improved=True)
    assert sorted(file.name for file in path.iterdir()) == ["best.keras", "history.json", "last.npz"]
    assert json.loads((path / "history.json").read_text()) == history(0.5)


def test_the_best_model_outlasts_worse_epochs(tmp_path):
    checkpoints, made = Checkpoints(tmp_path), model()

    def save(*dices):
        train(made)
        return checkpoints.save(made, history(*dices), improved=best_epoch(history(*dices)) == len(dices))

    def best():
        loaded = keras.saving.load_model(checkpoints.newest() / "best.keras")
        return [np.asarray(variable) for variable in loaded.variables]

    save(0.1)
    save(0.1, 0.3)
    second = [np.asarray(variable) for variable in made.variables]
    save(0.1, 0.3, 0.2)
    assert same(best(), second)
    assert not same([np.asarray(variable) for variable in made.variables], second)
    save(0.1, 0.3, 0.2, 0.4)
    assert same(best(), [np.asarray(variable) for variable in made.variables])


def test_what_is_unfinished_is_not_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    first = checkpoints.save(model(), history(0.1), improved=True)
    unfinished = tmp_path / ".epoch-0002.unfinished"
    unfinished.mkdir()
    (unfinished / "last.npz").write_bytes(b"half")
    assert checkpoints.newest() == first
    second = checkpoints.save(model(), history(0.1, 0.2), improved=True)
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    checkpoints, made = Checkpoints(tmp_path), model()
    first = checkpoints.save(made, history(0.1), improved=True)
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    with pytest.raises(TypeError):
        checkpoints.save(made, [*history(0.1), {"val/dice": object()}], improved=True)
    assert list(tmp_path.iterdir()) == [first]
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before


def test_removing_removes_all_of_it(tmp_path):
    checkpoints = Checkpoints(tmp_path / "a")
    checkpoints.save(model(), history(0.1), improved=True)
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []


def test_another_trainings_weights_are_taken_over_and_nothing_else(tmp_path):
    taker, donor = Checkpoints(tmp_path / "taker"), Checkpoints(tmp_path / "donor")
    taker_model, donor_model = model(seed=1), model(seed=2)
    train(taker_model)
    train(donor_model, steps=3)
    taker.save(taker_model, history(0.4), improved=True)
    best = (taker.newest() / "best.keras").read_bytes()
    assert not taker.take_weights(donor), "there are none"
    donor.save(donor_model, history(0.5, 0.6), improved=True)
    assert taker.take_weights(donor)
    taken = model(seed=3)
    assert restore(taken, taker.newest()) == history(0.4)
    assert same(state(taken), state(donor_model))
    assert (taker.newest() / "best.keras").read_bytes() == best


def test_the_state_of_another_network_is_refused(tmp_path):
    path = Checkpoints(tmp_path).save(model(), history(0.5), improved=True)
    inputs = keras.Input((3,))
    other = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    other.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    other.optimizer.build(other.trainable_variables)
    before = state(other)
    with pytest.raises(ValueError, match="of another network or optimizer"):
        restore(other, path)
    assert same(before, state(other))


# ---- A file system that fails for a while ----


@pytest.fixture
def stale(monkeypatch):
    """Let the state of checkpoints be a stale handle some times; nobody waits."""

    def fails(times):
        left = [times]
        read = checkpoint._read_state

        def reading(path):
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(116, "Stale file handle")
            return read(path)

        monkeypatch.setattr(checkpoint, "_read_state", reading)
        monkeypatch.setattr(checkpoint.time, "sleep", lambda _: None)

    return fails


def test_a_handle_that_is_stale_for_a_while_is_no_damage(tmp_path, stale):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(model(), history(0.1), improved=True)
    newest = checkpoints.save(model(), history(0.1, 0.2), improved=True)
    stale(3)
    assert checkpoints.set_aside_unreadable() == []
    assert checkpoints.newest() == newest


def test_one_that_stays_stale_is_the_systems_error_and_nothing_is_set_aside(tmp_path, stale, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.save(model(), history(0.1), improved=True)
    stale(99)
    clock = iter(range(0, 9999, 30))
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    with pytest.raises(OSError, match="Stale file handle"):
        checkpoints.set_aside_unreadable()
    assert newest.is_dir()


def test_a_name_whose_folder_is_gone_is_passed_over(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    there = checkpoints.save(model(), history(0.1), improved=True)
    gone = tmp_path / "epoch-0002"
    monkeypatch.setattr(Checkpoints, "_kept", lambda _: [gone, there])
    assert checkpoints.set_aside_unreadable() == []


def test_weights_are_not_taken_over_from_a_checkpoint_without_a_state(tmp_path):
    taker, donor = Checkpoints(tmp_path / "taker"), Checkpoints(tmp_path / "donor")
    taker.save(model(seed=1), history(0.4), improved=True)
    (donor.save(model(seed=2), history(0.5), improved=True) / "last.npz").unlink()
    assert not taker.take_weights(donor)
