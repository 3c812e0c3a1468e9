"""A U-Net as it is trained: with the loss of several levels, validated in windows where it is trained on patches."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from mis.data.windows import gaussian_weights, window_starts
from mis.model.losses import SegmentationLoss
from mis.model.metrics import CaseLoss
from mis.model.unet import UNet

VALIDATION_OVERLAP = 0.5
"""Of the windows of a validation: nnU-Net's."""


class TrainingModel(keras.Model):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """A U-Net whose outputs are its probabilities and the logits of each level that has a loss.

    Its metrics are those of the probabilities at full resolution, under the same names whatever the levels and the
    windows; `case_loss` in validation is the loss at full resolution.

    Attributes:
        segmentation_loss: The loss.
        windows: The size of the windows in which a validation predicts; None predicts a case in one piece.
        windows_at_once: How many windows of a case it predicts at once.
    """

    def __init__(
        self,
        network: UNet,
        loss: SegmentationLoss,
        *,
        windows: Sequence[int] | None = None,
        windows_at_once: int = 1,
    ) -> None:
        super().__init__(network.image, [network.probabilities, *network.logits], name="unet3d")
        self.segmentation_loss = loss
        self.windows = windows
        self.windows_at_once = windows_at_once
        self.case_loss = CaseLoss(loss)

    def compute_loss(
        self,
        x: Any = None,  # noqa: ANN401, ARG002 - as Keras calls it
        y: Any = None,  # noqa: ANN401
        y_pred: Sequence[Any] = (),
        sample_weight: Any = None,  # noqa: ANN401
        training: bool = True,  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        """Return the loss of a batch, the mean over its cases; on one of several replicas, its share of that."""
        return self.segmentation_loss(y, list(y_pred[1:]), sample_weight)

    def compute_metrics(
        self,
        x: Any,  # noqa: ANN401 - as Keras calls it
        y: Any,  # noqa: ANN401
        y_pred: Sequence[Any],
        sample_weight: Any = None,  # noqa: ANN401
    ) -> Mapping[str, Any]:
        """Add a batch to the metrics, and return them all."""
        self.case_loss.update_state(y, list(y_pred[1:]), sample_weight)
        metrics: Mapping[str, Any] = super().compute_metrics(x, y, y_pred[0], sample_weight)
        return metrics

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> Mapping[str, Any]:
        """Predict a batch of whole cases, and return the metrics."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.windows is None:
            probabilities, logits, *_ = self(x, training=False)
        else:
            probabilities, logits = self._predict_windows(x, self.windows)
        return self.compute_metrics(x, y, [probabilities, logits], sample_weight=sample_weight)

    def _predict_windows(self, image: tf.Tensor, size: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the probabilities and the logits of whole cases, each a weighted mean over windows.

        Args:
            image: (case, x, y, z, modality), its shape known but for the number of cases.
            size: The windows' size.

        Returns:
            Both float32 (case, x, y, z, region).
        """
        shape = image.shape[1:4]
        starts = window_starts(shape, size, VALIDATION_OVERLAP)
        at_once = min(self.windows_at_once, len(starts))
        groups = -(-len(starts) // at_once)
        # The last group is filled up with the first windows again, of weight 0.
        counts = [1.0] * len(starts) + [0.0] * (groups * at_once - len(starts))
        filled = [*starts.tolist(), *starts.tolist()][: len(counts)]
        starts_of = tf.reshape(tf.constant(filled, tf.int32), (groups, at_once, 3))
        counts_of = tf.reshape(tf.constant(counts), (groups, at_once))
        weights = tf.constant(gaussian_weights(size)[..., None])
        within = tf.stack(tf.meshgrid(*(tf.range(edge) for edge in size), indexing="ij"), axis=-1)
        channels = 2 * self.outputs[0].shape[-1]

        def add_group(group: tf.Tensor, sums: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """Predict some windows of every case, and add them: sums (x, y, z, case * channel), total (x, y, z, 1)."""
            pieces = [
                tf.slice(image, tf.concat([[0], starts_of[group, number], [0]], 0), (-1, *size, -1))
                for number in range(at_once)
            ]
            both = tf.concat(self(tf.concat(pieces, 0), training=False)[:2], axis=-1)
            for number, of_window in enumerate(tf.split(both, at_once)):
                where, weight = within + starts_of[group, number], weights * counts_of[group, number]
                update = tf.reshape(tf.transpose(of_window, (1, 2, 3, 0, 4)), (*size, -1)) * weight
                sums = tf.tensor_scatter_nd_add(sums, where, update)
                total = tf.tensor_scatter_nd_add(total, where, weight)
            return group + 1, sums, total

        cases = tf.shape(image)[0]
        empty = tf.zeros(tf.stack([*shape, cases * channels])), tf.zeros((*shape, 1))
        _, sums, total = tf.while_loop(
            lambda group, *_: group < groups,
            add_group,
            (tf.constant(0), *empty),
            shape_invariants=(tf.TensorShape(()), tf.TensorShape((*shape, None)), tf.TensorShape((*shape, 1))),
            parallel_iterations=1,  # one group's activations at a time in memory
        )
        by_case = tf.transpose(tf.reshape(sums / total, tf.stack([*shape, cases, channels])), (3, 0, 1, 2, 4))
        probabilities, logits = tf.split(tf.ensure_shape(by_case, (None, *shape, channels)), 2, axis=-1)
        return probabilities, logits
