"""Distributed training and hyperparameter search for 3D medical image segmentation, on Keras 3."""

import os

__version__ = "0.1.0"

# Set before the libraries are imported, which read them only then; a user's own value stands.
for _name, _value in {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # no lines about absent GPUs; what goes wrong is raised as well
    "MLFLOW_DISABLE_TELEMETRY": "true",  # usage reports are the user's decision
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
