"""`python -m mis.slurm.joined NODE...`: wait until all nodes of a job are part of its Ray, or end with exit code 3."""

import argparse
import logging
import time
from collections.abc import Sequence

import ray

from mis import cli
from mis.slurm.steps import NOT_JOINED, say
from mis.words import counted

POLL_S = 0.5
SAY_EVERY_S = 15.0

LABEL = "mis/node"
"""The label that each node has by `mis.slurm.node`: its name for SLURM."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser("python -m mis.slurm.joined", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--within-s", type=float, required=True)
    parser.add_argument("nodes", nargs="+")
    options = parser.parse_args(argv)
    return cli.exit_code(lambda: _wait(options.nodes, options.within_s))


def _wait(names: Sequence[str], within_s: float) -> int:
    begun = time.monotonic()
    ray.init(address="auto", log_to_driver=False, logging_level=logging.CRITICAL)  # RAY_ADDRESS names it
    said = begun
    while True:
        alive = {node["Labels"].get(LABEL, ""): node["Resources"] for node in ray.nodes() if node["Alive"]}
        missing = [name for name in names if name not in alive]
        if not missing:
            gpus = int(sum(resources.get("GPU", 0) for resources in alive.values()))
            cpus = int(sum(resources.get("CPU", 0) for resources in alive.values()))
            what = counted(gpus, "GPU") if gpus else counted(cpus, "core")
            say(f"Ray runs on {', '.join(names)} with {what}")
            return 0
        now = time.monotonic()
        if now - begun > within_s:
            say(f"{', '.join(missing)} must have joined Ray within {within_s:.0f} s")
            return NOT_JOINED
        if now - said > SAY_EVERY_S:
            said = now
            say(f"waiting for {', '.join(missing)}")
        time.sleep(POLL_S)


if __name__ == "__main__":
    raise SystemExit(main())
