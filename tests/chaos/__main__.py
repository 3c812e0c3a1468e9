"""`python -m tests.chaos --hours 1 --seed 7`: searches and trainings under faults, for so long.

An episode is a search, whose trials have known curves, on one machine or over two nodes, or a training of a small
network: with random parameters, and random faults (`faults.py`) until it ends. What must hold then is checked
(`episodes.py`): each trial once, no step twice or missing, none running, the decisions of the same search undisturbed,
all files readable, and MLflow has all of it once. What does not hold is printed with the seed of its episode, which
`--only SEED` runs again; when faults come depends on the machine, so that it may take some runs.
"""

import argparse
import sys
import time
from collections import Counter

from tests.chaos.episodes import Report, run_episode
from tests.chaos.world import world


def main(argv=None):
    """Run episodes, print what they outlived, and return 1 where something did not hold."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=0.1, help="no episode begins after so long")
    parser.add_argument("--episodes", type=int, help="at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="SEED", help="the seed of an episode, as it is printed")
    options = parser.parse_args(argv)
    deadline, findings = time.monotonic() + options.hours * 3600, 0
    done, kinds, number = Counter(), Counter(), 0
    with world() as there:
        while time.monotonic() < deadline and number != options.episodes:
            seed = options.only or f"{options.seed}-{number}"
            begun, report = time.monotonic(), Report()
            try:
                run_episode(there, seed, f"e{number}-{seed}", report)
            except Exception as error:  # whatever it is, it is a finding, and the next episode goes on
                findings += 1
                told = f"{report.kind}: {', '.join(report.faults)}: {type(error).__name__}: {error}"
                print(f"FINDING in episode --only {seed}: {told}", flush=True)
            else:
                done.update(report.faults)
                kinds[report.kind.partition(",")[0]] += 1
                took = time.monotonic() - begun
                print(f"{seed:>8}  {took:4.0f} s  {report.kind}: {', '.join(report.faults)}", flush=True)
            number += 1
            if options.only:
                break
    print(f"\nseed {options.seed}: {number} episodes, {dict(kinds)}, {sum(done.values())} faults, {findings} findings")
    for name, count in done.most_common():
        print(f"| {name} | {count} |")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
