"""From Keras' logs of an epoch to the metrics of its history, by the names in `mis.track.names`."""

from collections.abc import Mapping

from mis.track.names import MODEL_PARAMETERS


def epoch_metrics(logs: Mapping[str, float]) -> dict[str, float]:
    """Rename Keras' logs of an epoch to the names that a run has.

    Times and shares of them go to `time/`, bytes to `memory/`, whatever they are measured in; everything else to
    `train/`, or where Keras says so to `val/`.

    `case_loss`, a mean over cases, takes the name of Keras' own `loss`, a mean over batches of whatever size.

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
            named[MODEL_PARAMETERS] = float(value)
        elif name.endswith("_bytes"):
            named[f"memory/{name}"] = float(value)
        elif name != "loss":
            named[f"{part}/{'loss' if name == 'case_loss' else name}"] = float(value)
    return named
