"""What the metrics of an epoch are called wherever they are written."""

from collections.abc import Mapping

SELECTION = "val/dice"
"""The metric that chooses the best epoch, trial and model; higher is better."""

BEST_SCORE = "best/dice"
"""The best value of it so far."""

TRAINED_S = "time/total_s"
"""Seconds of all epochs so far."""

EPOCH_S = "time/epoch_s"
"""Seconds of an epoch."""

PARAMETERS = "model/parameters"
"""Trainable weights."""


def epoch_metrics(logs: Mapping[str, float]) -> dict[str, float]:
    """Rename Keras' logs to the names used in MLflow, files and searches.

    The text before the slash is what MLflow makes a section of its charts from. `case_loss`, a
    mean over cases, stands for Keras' own `loss`, a mean over batches of whatever size.

    >>> epoch_metrics({"loss": 1.0, "case_loss": 0.9, "val_dice_wt": 0.5, "epoch_s": 2.0})
    {'train/loss': 0.9, 'val/dice_wt': 0.5, 'time/epoch_s': 2.0}
    >>> epoch_metrics({"input_share": 0.1, "host_peak_bytes": 2e9})
    {'time/input_share': 0.1, 'memory/host_peak_bytes': 2000000000.0}
    >>> epoch_metrics({"devices": 4})
    {'time/devices': 4.0}
    >>> epoch_metrics({"parameters": 1200})
    {'model/parameters': 1200.0}
    """
    named = {}
    for key, value in logs.items():
        part, name = ("val", key.removeprefix("val_")) if key.startswith("val_") else ("train", key)
        if name.endswith(("_s", "_share")) or name == "devices":
            named[f"time/{name}"] = float(value)
        elif name == "parameters":
            named[PARAMETERS] = float(value)
        elif name.endswith("_bytes"):
            named[f"memory/{name}"] = float(value)
        elif name != "loss":
            named[f"{part}/{'loss' if name == 'case_loss' else name}"] = float(value)
    return named
