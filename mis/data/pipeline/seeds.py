"""Seeds of what is random in a training: each is a number of its own for the training, the epoch, the case and the use.

So what is sampled for one case or one transform depends on no other.
"""

import hashlib

import tensorflow as tf


def name_number(name: str, bits: int = 62) -> int:
    """Return a whole number from 0 to below 2**bits that a name always has, and hardly another name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> (64 - bits)


def named_seed(seed: tf.Tensor, name: str) -> tf.Tensor:
    """Return the seed that `name` has under `seed`: int64 (2,), as `seed` is."""
    return tf.random.experimental.stateless_fold_in(seed, name_number(name, bits=31))
