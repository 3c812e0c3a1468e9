"""The two speed-ups that the paper reports (IPDPSW 2022)."""

from collections.abc import Mapping

from mis.params.scaling import Mode

GPUS = 32
"""V100, four to a node."""

REPORTED: Mapping[Mode, float] = {"data": 12.0, "experiment": 14.0}
"""How many times faster than on one GPU, for a list of 32 trials."""
