"""What is kept with a model: what it was trained on, and how an image must be brought to it.

It is a member of the model's own file, which is a zip archive: wherever the file goes, the card goes with it. Keras
reads the members that it knows, so that the file stays a plain Keras model.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mis.data.geometry import Shape, as_shape
from mis.data.records.index import Records
from mis.errors import MisError
from mis.params.data import DataParams
from mis.params.model import ModelParams
from mis.params.train import TrainParams

MEMBER = "mis.json"
FORMAT = 1
"""The version of the card. It changes whenever older ones cannot be read."""


VALIDATION_SPLIT = "val"
"""What a model was validated on where there are no folds."""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model beside its weights.

    Attributes:
        modalities: The image's channels, in their order.
        regions: The channels of the result, in their order.
        data: The parameters of the preprocessing.
        grid: The grid (x, y, z) of the whole cases that it was trained or validated on.
        patch_size: The size of the patches that it was trained on; None: whole cases.
        multiple: Every axis of an image must be a multiple of it.
        records: The digest of the records that it was trained on.
        data_hash: DVC's hash of the data set; None where it is not versioned.
        validated_on: The cases that its validation Dice is of: `val` for those of the split, `fold 0 of 5`, or of an
            ensemble `each of 5 folds`.
    """

    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    data: DataParams
    grid: Shape
    patch_size: Shape | None
    multiple: int
    records: str
    data_hash: str | None
    validated_on: str = VALIDATION_SPLIT

    @classmethod
    def of(cls, records: Records, model: ModelParams, train: TrainParams) -> "ModelCard":
        """Return the card of a model that is trained on these records with these parameters."""
        return cls(
            modalities=records.modalities,
            regions=records.regions,
            data=records.params,
            grid=records.shape,
            patch_size=train.patch_size,
            multiple=model.multiple,
            records=records.digest,
            data_hash=records.data_hash,
            validated_on=validation_cases(train),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values, which `from_json` reads."""
        values = {name: value for name, value in vars(self).items() if name != "data"}
        return {"format": FORMAT, **values, "data": self.data.model_dump(mode="json")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelCard":
        """Return the card that `to_json` wrote."""
        if values["format"] != FORMAT:
            raise ValueError(f"its card has the format {values['format']}, not {FORMAT}")
        patch = values["patch_size"]
        return cls(
            modalities=tuple(values["modalities"]),
            regions=tuple(values["regions"]),
            data=DataParams.model_validate(values["data"]),
            grid=as_shape(values["grid"]),
            patch_size=None if patch is None else as_shape(patch),
            multiple=int(values["multiple"]),
            records=values["records"],
            data_hash=values["data_hash"],
            validated_on=values.get("validated_on", VALIDATION_SPLIT),  # which it was before there were folds
        )


def validation_cases(train: TrainParams) -> str:
    """Return which cases a training by itself is validated on, as a card has it."""
    return VALIDATION_SPLIT if train.folds is None else f"fold {train.fold} of {train.folds}"


def add_card(path: Path, card: ModelCard) -> None:
    """Add a card to a model's file."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, json.dumps(card.to_json(), indent=2))


def read_card(path: Path) -> ModelCard:
    """Return the card of a model's file.

    Raises:
        MisError: The file is missing, is no model, or has no card.
    """
    if not path.is_file():
        raise MisError("a model's file must exist", got=path)
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(MEMBER)
        return ModelCard.from_json(json.loads(content))
    except KeyError:
        raise MisError(
            "a model must have its preprocessing with it (mis.json in its file)",
            got=f"none in {path}",
            do="train again",
        ) from None
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise MisError(f"{path} must be a model of Keras with its card: {error}", do="copy it again") from None
