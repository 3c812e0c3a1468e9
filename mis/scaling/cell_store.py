"""The cells of an unfinished comparison on disk: one that was killed goes on with those that are missing."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mis.files import new_file
from mis.scaling.cells import MeasuredCell
from mis.scaling.plan import Cell

_CELL = TypeAdapter(MeasuredCell)


class CellStore:
    """A folder with a file for each cell.

    Attributes:
        folder: The folder, whose name follows from what is compared.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The comparison's name, which is another one for each that is begun anew."""
        path = self.folder / "name"
        if not path.exists():
            with new_file(path) as unfinished:
                unfinished.write_text(f"{self.folder.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}", encoding="utf-8")
        return path.read_text(encoding="utf-8")

    def read(self, cell: Cell) -> MeasuredCell | None:
        """Return a cell that was measured before; None where it was not, or where its file is damaged."""
        try:
            return _CELL.validate_json(self._path(cell).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, measured: MeasuredCell) -> None:
        """Keep a cell."""
        with new_file(self._path(measured.cell)) as unfinished:
            unfinished.write_bytes(_CELL.dump_json(measured))

    def remove(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.mode}-{cell.devices}-{cell.each}-{cell.round}.json"
