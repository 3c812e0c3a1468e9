"""The bytes of a case's record: a TensorFlow example in a TFRecord file of one record."""

import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mis.data.records.preprocess import Brain, standardise_as_recorded


def serialize(brain: Brain, bits: NDArray[np.uint8], *, compress: bool) -> bytes:
    """Return the record of a case, which `mis.data.pipeline.decode.decode` reads.

    Args:
        brain: The voxels of the case.
        bits: (x, y, z): the regions of each voxel, see `mis.data.records.preprocess.region_bits`.
        compress: Whether the intensities are compressed; the label always is.
    """
    image = standardise_as_recorded(brain.values).tobytes()
    features = {
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=brain.mask.shape)),
        "mask": _bytes(np.packbits(brain.mask).tobytes()),
        "image": _bytes(zlib.compress(image, 1) if compress else image),
        "label": _bytes(zlib.compress(bits.tobytes(), 6)),
    }
    # Deterministic: otherwise the order of the features differs from process to process, and so does the hash.
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _bytes(content: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))


def write_record(path: Path, serialized: bytes) -> None:
    """Write a TFRecord file of one record."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(serialized)
