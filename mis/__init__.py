"""Distributed training and hyperparameter search for 3D medical image segmentation, on Keras 3."""

import os

__version__ = "0.1.0"

# Set before the libraries are imported, which read them only then; a user's own value stands.
for _name, _value in {
    # By itself TensorFlow takes oneDNN only on CPUs with AVX512-VNNI or AMX; on others a step takes 5 times as long.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # no lines about absent GPUs; what goes wrong is raised as well
    "MLFLOW_DISABLE_TELEMETRY": "true",  # usage reports are the user's decision
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 of RunConfig: no tables of Ray's own
    # mis says itself, once, what became of a worker or a node.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|marked dead|Raylet is terminated",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no TensorBoard, CSV and JSON beside MLflow
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # a stopped trial may take until the end of its epoch
}.items():
    os.environ.setdefault(_name, _value)
if not os.environ.get("RAY_ADDRESS"):
    # A Ray cluster of one machine listens on the loopback address alone.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
