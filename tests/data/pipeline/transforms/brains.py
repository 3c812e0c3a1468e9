"""Small images of a brain in air."""

import numpy as np
import tensorflow as tf


def brain_image(shape=(10, 9, 8), seed=0):
    """Return an image, standardised over the brain, and where the brain is."""
    random = np.random.default_rng(seed)
    brain = np.linalg.norm(np.indices(shape) / np.reshape(shape, (3, 1, 1, 1)) - 0.45, axis=0)[..., np.newaxis] < 0.4
    image = random.normal(size=(*shape, 4))
    image = (image - image.mean(axis=(0, 1, 2), where=brain)) / image.std(axis=(0, 1, 2), where=brain)
    return np.where(brain, image, 0).astype(np.float32), brain


def line(*values):
    """Return voxels along x with a single modality."""
    return tf.constant(np.reshape(values, (-1, 1, 1, 1)), tf.float32)
