"""Distributed training and hyperparameter search for 3D medical image segmentation, on Keras 3."""

__version__ = "0.1.0"
