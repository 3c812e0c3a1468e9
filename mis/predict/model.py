"""One model or several, ready to predict a case as they were trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import lcm
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from mis.data.geometry import Shape
from mis.errors import MisError
from mis.model.card import ModelCard, read_card
from mis.model.group_norm import accelerate
from mis.params.predict import PredictParams
from mis.predict.ensemble import members_of
from mis.predict.inference import Inference, predict_volume, predictor_of


@dataclass(frozen=True)
class Segmenter:
    """Models that predict together, each with the same weight.

    Attributes:
        models: The networks, at least one; of a file that is an ensemble, its members.
        card: What they were trained on, the first one's: what their input and windows depend on is the same for all,
            but for `multiple`, which fits all of them.
        digest: A hash of their files.
    """

    models: tuple[keras.Model, ...]
    card: ModelCard
    digest: str

    def probabilities(
        self,
        image: NDArray[np.floating],
        params: PredictParams,
        on_window: Callable[[int], object] = lambda count: None,  # noqa: ARG005
    ) -> NDArray[np.float32]:
        """Return the probability of each region for each voxel of a case.

        Args:
            image: (x, y, z, modality), preprocessed as the card says.
            params: The windows.
            on_window: Called with a number of windows when they are predicted.

        Returns:
            float32 (x, y, z, region), in [0, 1].
        """
        window = self.window(image.shape[:3], params)
        inference = Inference(window, params.overlap, mirror=params.mirror, batch_size=params.batch_size)
        predictors = [predictor_of(model) for model in self.models]
        return predict_volume(predictors, image, len(self.card.regions), inference, on_window)

    def window(self, shape: Sequence[int], params: PredictParams) -> Shape:
        """Return the size of a window.

        Where a model was trained on whole cases it is the grid of those: what surrounds the brain is part of what its
        normalisation has seen. A case that is larger is predicted in one piece as well.

        Args:
            shape: The voxels of the case along (x, y, z).
            params: `window` is taken where it is set.

        Raises:
            MisError: `window` is of no size that the network takes.
        """
        self.check_window(params)
        step = self.card.multiple
        if window := params.window or self.card.patch_size:
            return window
        x, y, z = (max(edge, step * -(-length // step)) for edge, length in zip(self.card.grid, shape, strict=True))
        return x, y, z

    def check_window(self, params: PredictParams) -> None:
        """Check that the network takes windows of this size.

        Raises:
            MisError: It does not.
        """
        step = self.card.multiple
        if params.window is not None and any(edge % step for edge in params.window):
            fits = tuple(step * -(-edge // step) for edge in params.window)
            raise MisError(
                f"predict.window must be a multiple of {step} in every axis for this model",
                got=params.window,
                do=f"the next that fits is {fits}",
            )


def load_segmenter(paths: Sequence[Path]) -> Segmenter:
    """Load models that were trained alike.

    Args:
        paths: Their files, at least one.

    Raises:
        MisError: A file is missing or is no model with its card, or the models differ in what they take or give.
    """
    cards = [read_card(path) for path in paths]
    for path, card in zip(paths, cards, strict=True):
        for name, value, first in (
            ("modalities", card.modalities, cards[0].modalities),
            ("regions", card.regions, cards[0].regions),
            ("spacing_mm", card.data.spacing_mm, cards[0].data.spacing_mm),
            ("crop", card.data.crop, cards[0].data.crop),
            ("patch_size", card.patch_size, cards[0].patch_size),
            ("grid", card.grid, cards[0].grid),
        ):
            if value != first:
                raise MisError(
                    f"models that predict together must have the same {name}",
                    got=f"{value} in {path}, {first} in {paths[0]}",
                )
    digest = sha256(b"".join(sha256(path.read_bytes()).digest() for path in paths)).hexdigest()
    card = replace(cards[0], multiple=lcm(*(card.multiple for card in cards)))
    return Segmenter(tuple(member for path in paths for member in load_members(path)), card, digest)


def load_members(path: Path) -> tuple[keras.Model, ...]:
    """Return the model of a file, or the members of an ensemble; they can predict and are not compiled.

    Raises:
        MisError: The file is no model of Keras.
    """
    try:
        return tuple(
            accelerate(model) for model in members_of(keras.saving.load_model(path, compile=False, safe_mode=True))
        )
    except (OSError, ValueError, TypeError) as error:
        raise MisError(f"{path} must be a model of Keras: {str(error).splitlines()[0]}", do="copy it again") from None
