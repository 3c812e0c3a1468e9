"""The checkpoints of a training: its state on disk after each epoch, from which a killed training goes on.

A checkpoint is a folder `epoch-0007` with the weights and the optimizer's state after that epoch,
the best model so far, and the history. It is written under another name and then renamed: it is
there whole or not at all. The one before it is kept too: disks fail, and where the newest cannot be
read, the training goes on from that. What follows from the history (the best epoch, whether to stop)
is computed from it and not stored beside it.
"""

import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from mis.files import REMOVED, link_or_copy, new_file, new_folder, remove_folder, write_json
from mis.model.card import ModelCard, add_card
from mis.storage.remote import Say
from mis.track.names import TRAIN_LOSS, VAL_DICE
from mis.train import messages

if TYPE_CHECKING:  # a search's driver reads histories and does without Keras
    import keras

STATE = "last.npz"
"""The file of a checkpoint with the weights and the optimizer's state."""

BEST = "best.keras"
"""The file of a checkpoint with the best model so far."""

HISTORY = "history.json"
"""The file of a checkpoint with the history."""

SEEN_WITHIN_S = 60.0
"""Seconds in which what another node has written is to be seen: NFS looks for new files after 30 to 60 s."""

LOOK_S = 0.5
"""Seconds between two looks."""

KEPT = 2
"""Checkpoints of a training that are kept."""

ASIDE = ".unreadable"
"""Ending of the name of a checkpoint that could not be read."""

DAMAGED = (EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, FileNotFoundError, NotADirectoryError)
"""What reading a damaged file, or one of which a part is missing, raises; other errors of the system may pass."""

Content = TypeVar("Content")

History = list[dict[str, float]]
"""One mapping of metric names to values for each epoch."""


def seen(is_there: Callable[[], bool], within_s: float = SEEN_WITHIN_S) -> bool:
    """Wait until something is seen, and return whether it is: a file that is not seen yet may be there all the same."""
    deadline = time.monotonic() + within_s
    while not is_there():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """Return the number, from 1, of the first epoch with the best validation Dice.

    >>> best_epoch([{"val/dice": 0.1}, {"val/dice": 0.3}, {"val/dice": 0.3}])
    2
    """
    scores = [epoch[VAL_DICE] if isfinite(epoch[VAL_DICE]) else -inf for epoch in history]
    return scores.index(max(scores)) + 1


def is_finished(history: History, *, epochs: int, patience: int) -> bool:
    """Return whether a training has had all its epochs, or `patience` of them without a better Dice, or diverged.

    >>> is_finished([{"val/dice": 0.3, "train/loss": 0.7}, {"val/dice": 0.2, "train/loss": 0.6}], epochs=9, patience=1)
    True
    """
    if not history:
        return False
    if not isfinite(history[-1][TRAIN_LOSS]):
        return True
    return len(history) >= epochs or len(history) - best_epoch(history) >= patience


class SharesNumbers(Protocol):
    """What the workers of a training tell each other: `mis.train.worker.Worker`, which imports TensorFlow."""

    def of_chief(self, value: int) -> int:
        """Return the chief's value."""

    def agree(self, value: int, what: str) -> None:
        """Raise MisError where the workers have different values."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training; the newest is kept, and the one before it.

    Attributes:
        folder: The folder that has them.
        writes: Whether this process writes them. Of the workers of one training only the chief does.
    """

    folder: Path
    writes: bool = True

    @property
    def may_lack_epochs(self) -> bool:
        """Whether the last epochs of a process that was lost may be lost with it: then they are trained again."""
        return False

    @property
    def seen_within_s(self) -> float:
        """Seconds for which what another process has written is waited for."""
        return SEEN_WITHIN_S

    @contextmanager
    def here(self, *, writes: bool = True, say: Say = print) -> Iterator["Checkpoints"]:  # noqa: ARG002
        """Yield the checkpoints for a process that trains; those that are kept elsewhere are on its own disk then.

        Args:
            writes: Whether it writes them. Of the workers of one training only the chief does.
            say: Takes a line for people.
        """
        yield replace(self, writes=writes)

    def fetch_model(self, say: Say = print) -> None:
        """Bring the model of the newest checkpoint here, where that is kept elsewhere."""

    def newest(self) -> Path | None:
        """Return the newest checkpoint of which the history can be read."""
        return next((path for path in self._kept() if _is_readable(path)), None)

    def _kept(self) -> list[Path]:
        """Return all checkpoints, the newest first."""
        return sorted(self.folder.glob("epoch-*"), reverse=True)

    def set_aside_unreadable(self) -> list[str]:
        """Rename the checkpoints that cannot be read, newer than the newest that can, and say so in a line for each.

        Whoever goes on with a training calls it first: it reads all of the newest checkpoint once.
        """
        if self.writes:
            self._sweep(f".epoch-*{REMOVED}")
        unreadable, is_left = [], False
        for path in self._kept():
            try:
                patiently(partial(_read_all, path))
            except DAMAGED as error:
                if not path.is_dir():  # a listing of names that another node has removed since
                    continue
                if self.writes:
                    shutil.rmtree(aside := path.with_name(f".{path.name}{ASIDE}"), ignore_errors=True)
                    path.rename(aside)
                unreadable.append((path, error))
            else:
                is_left = True
                break
        oldest = len(unreadable) - 1
        return [
            messages.unreadable_checkpoint(path, error, one_is_left=is_left or number < oldest)
            for number, (path, error) in enumerate(unreadable)
        ]

    def aside(self) -> list[Path]:
        """Return the folders of the checkpoints that could not be read."""
        return sorted(self.folder.glob(f".epoch-*{ASIDE}"))

    def history(self, at_least: int = 0) -> History:
        """Return the history of the newest checkpoint, empty where there is none.

        Args:
            at_least: How many epochs it must have, as another process knows: they are waited for.
        """
        seen(lambda: not at_least or self.has_seen(at_least), self.seen_within_s)
        newest = self.newest()
        return read_history(newest) if newest else []

    def history_of(self, worker: "SharesNumbers") -> History:
        """Return the history from which all workers of a training go on, which must all call it.

        The chief has set aside what it cannot read. The others may see its newest checkpoint later: they wait for it.

        Raises:
            MisError: A worker does not see it.
        """
        epochs = worker.of_chief(len(self.history()))
        history = self.history(at_least=epochs)
        worker.agree(len(history), f"the number of epochs in the newest checkpoint in {self.folder}")
        return history

    def has_seen(self, epochs: int) -> bool:
        """Return whether there is a checkpoint after so many epochs, be it one that cannot be read."""
        numbers = [int(path.name[-4:]) for path in self._kept()]
        numbers += [int(path.name.removesuffix(ASIDE)[-4:]) for path in self.aside()]
        return max(numbers, default=0) >= epochs

    def save(
        self,
        model: "keras.Model",
        history: History,
        *,
        improved: bool,
        best_weights: AbstractContextManager[None] | None = None,
        card: ModelCard | None = None,
    ) -> Path | None:
        """Write the state after the last epoch of `history`.

        The best model is written without loss and metrics: it loads as a plain Keras model, on any
        backend and without this package.

        Args:
            model: The model, compiled.
            history: All epochs so far.
            improved: Whether the last epoch is the best one; otherwise the best model is taken over
                from the checkpoint before.
            best_weights: While it is entered the model has the weights that the best model gets; the state has both.
            card: What is kept with the best model, in its file.

        Returns:
            The checkpoint; None where this process writes none.
        """
        if not self.writes:
            return None
        import keras

        state = (keras.ops.convert_to_numpy(variable) for variable in _state(model))

        def save_model(path: Path) -> None:
            with best_weights or nullcontext():
                plain(model).save(path)
            if card is not None:
                add_card(path, card)

        return self.write(state, save_model, history, improved=improved)

    def write(
        self, state: Iterable[np.ndarray], save_model: Callable[[Path], object], history: History, *, improved: bool
    ) -> Path:
        """Write the state after the last epoch of `history`, whatever was trained.

        Args:
            state: The weights and the optimizer's state.
            save_model: Writes the model to a path.
            history: All epochs so far.
            improved: Whether the last epoch is the best one.
        """
        before = self.newest()
        path = self.folder / f"epoch-{len(history):04d}"
        with new_folder(path) as unfinished:
            # To save with Keras takes several times as long for a small network, which a search pays after every epoch.
            np.savez(unfinished / STATE, *state)
            if improved or before is None:
                save_model(unfinished / BEST)
            else:
                link_or_copy(before / BEST, unfinished / BEST)
            write_json(unfinished / HISTORY, history)
        for older in self._kept()[KEPT:]:
            remove_folder(older)
        return path

    def take_weights(self, other: "Checkpoints", at_least: int = 0) -> bool:
        """Copy the newest weights and optimizer's state of another training of the same network into this one.

        The history, and the best model so far, stay those of this training.

        Args:
            other: The other training's checkpoints.
            at_least: After how many epochs its newest one must be, as another process knows: it is waited for.

        Returns:
            Whether both trainings have a checkpoint. One that another process deletes meanwhile is looked for again.
        """

        def taken() -> bool:
            target, source = self.newest(), other.newest()
            if target is None or source is None or not other.has_seen(at_least):
                return False
            with suppress(FileNotFoundError), new_file(target / STATE) as unfinished:
                shutil.copyfile(source / STATE, unfinished)
                return True
            return False

        return seen(taken, other.seen_within_s if at_least else 0.0)

    def remove(self) -> None:
        """Delete all checkpoints, and the folder that has them."""
        remove_folder(self.folder)

    def clear(self) -> None:
        """Delete all checkpoints, whole or not, and leave what else is in the folder."""
        for path in self._kept():
            remove_folder(path)
        self._sweep(".epoch-*")

    def _sweep(self, pattern: str) -> None:
        """Delete folders that count for nothing: what a kill has left of a write, or of a deletion."""
        for path in self.folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def plain(model: "keras.Model") -> "keras.Model":
    """Return the same network with the same weights, from image to probabilities: its first output."""
    import keras

    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def restore(model: "keras.Model", checkpoint: Path) -> History:
    """Load weights and optimizer state into a compiled model and return the history.

    Raises:
        ValueError: The checkpoint is of another network or optimizer.
    """
    variables, state = _state(model), _read_state(checkpoint)
    if [value.shape for value in state] != [tuple(variable.shape) for variable in variables]:
        raise messages.state_of_another_network(checkpoint / STATE)
    for variable, value in zip(variables, state, strict=True):
        variable.assign(value)
    return read_history(checkpoint)


def _read_state(checkpoint: Path) -> list[np.ndarray]:
    with (checkpoint / STATE).open("rb") as file, np.load(file) as state:  # numpy leaves a damaged file open
        return list(state.values())


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} in {path} is damaged")


def _is_readable(checkpoint: Path) -> bool:
    try:
        patiently(lambda: read_history(checkpoint))
    except DAMAGED:
        return False
    return True


def _read_all(checkpoint: Path) -> None:
    _read_state(checkpoint)
    _check_archive(checkpoint / BEST)
    read_history(checkpoint)


def patiently(read: Callable[[], Content], within_s: float = SEEN_WITHIN_S) -> Content:
    """Read, and try again where the file system fails for a while (a stale handle, too many open files).

    Raises:
        OSError: It has failed for so long.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return read()
        except DAMAGED:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S)


def _state(model: "keras.Model") -> list["keras.Variable"]:
    """Return all variables that training changes, in an order that depends on the network and the optimizer alone."""
    return [*model.variables, *model.optimizer.variables]


def read_history(checkpoint: Path) -> History:
    """Return the history of a checkpoint."""
    history: History = json.loads((checkpoint / HISTORY).read_text(encoding="utf-8"))
    return history
