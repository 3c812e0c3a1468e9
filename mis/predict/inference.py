"""Predict a volume of any size: sliding windows with Gaussian weights, mirrored, by one model or several."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import keras
import numpy as np
from numpy.typing import NDArray

from mis.data.geometry import Shape, centred_start, take_window
from mis.data.windows import gaussian_weights, window_starts

Axes = tuple[int, ...]
"""Axes of a batch that are reflected: 1, 2, 3 for x, y, z."""


@dataclass(frozen=True)
class Inference:
    """How a volume is predicted.

    Attributes:
        window: The number of a window's voxels along (x, y, z), which the network takes.
        overlap: The least share of a window, along an axis, that the next one covers as well; in [0, 1).
        mirror: Whether each window is predicted in all 8 reflections, whose mean counts.
        batch_size: How many windows are predicted at once.
    """

    window: Shape
    overlap: float
    mirror: bool
    batch_size: int


def predict_volume(
    predictors: Sequence[Callable[[NDArray[np.float32]], NDArray[np.float32]]],
    image: NDArray[np.floating],
    regions: int,
    inference: Inference,
    on_window: Callable[[int], object] = lambda count: None,  # noqa: ARG005
) -> NDArray[np.float32]:
    """Return the probability of each region for each voxel: the mean over windows, reflections and models.

    The sums are in the host's memory: 4 bytes for each voxel and region, beside the image and a batch of windows.
    A window in which every modality is 0 is not predicted: there is no brain in it, and no tumour.

    Args:
        predictors: Each returns the probabilities of a batch, float32 (batch, x, y, z, region), from the batch, float32
            (batch, x, y, z, modality).
        image: (x, y, z, modality), standardised over the brain and 0 in air.
        regions: How many regions there are.
        inference: The windows.
        on_window: Called with a number of windows when they are predicted.

    Returns:
        float32 (x, y, z, region), in [0, 1]; 0 where no window was predicted.
    """
    shape: Shape = image.shape[:3]
    padded: Shape = tuple(max(pair) for pair in zip(shape, inference.window, strict=True))  # type: ignore[assignment]
    offset = tuple(centred_start(size, target) for size, target in zip(shape, padded, strict=True))
    volume = image if padded == shape else take_window(image, offset, padded)
    weights = gaussian_weights(inference.window)[..., np.newaxis]
    sums = np.zeros((*padded, regions), np.float32)
    total = np.zeros((*padded, 1), np.float32)
    reflections: list[Axes] = [()]
    if inference.mirror:
        reflections = list(chain.from_iterable(combinations((1, 2, 3), count) for count in range(4)))
    for windows in _batches(volume, inference):
        batch = np.stack([volume[window] for window in windows]).astype(np.float32)
        probability = np.zeros((*batch.shape[:4], regions), np.float32)
        for axes in reflections:
            reflected = np.flip(batch, axes) if axes else batch
            for predict in predictors:
                predicted = predict(np.ascontiguousarray(reflected))
                probability += np.flip(predicted, axes) if axes else predicted
        probability /= len(reflections) * len(predictors)
        for window, of_window in zip(windows, probability, strict=True):
            sums[window] += of_window * weights
            total[window] += weights
        on_window(len(windows))
    np.divide(sums, total, out=sums, where=total > 0)
    return sums if padded == shape else take_window(sums, tuple(-first for first in offset), shape)


def _batches(volume: NDArray[np.floating], inference: Inference) -> Iterator[list[tuple[slice, slice, slice]]]:
    """Yield the windows that have brain in them, some at a time."""
    batch: list[tuple[slice, slice, slice]] = []
    for start in window_starts(volume.shape[:3], inference.window, inference.overlap):
        x, y, z = (slice(int(first), int(first) + edge) for first, edge in zip(start, inference.window, strict=True))
        if not volume[x, y, z].any():
            continue
        batch.append((x, y, z))
        if len(batch) == inference.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def predictor_of(model: keras.Model) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the function that predicts a batch with a model, which is traced once for each shape of a batch."""

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = np.asarray(model.predict_on_batch(batch))
        return result

    return predict
