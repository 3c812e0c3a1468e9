"""How long a training waits for the report of an epoch to be logged, with the server answering and with it hanging.

`python benchmarks/reports.py` starts an MLflow server and logs epochs of 40 metrics to it, as a training does. Then it
stops the server's processes, so that it accepts connections and answers none, and logs as many more. A report has
returned when it is on the disk. Less than a minute, most of which is the server's start.

The bar: 10 ms while the server hangs.
"""

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from page import measured_where

from mis.ports import free_port
from mis.settings import Settings
from mis.track.base import TRAIN, Run, tracked
from mis.track.recording import open_tracker
from mis.track.server import server, wait_until_ready

ROOT = Path(__file__).parents[1]
METRICS = 40
BAR_MS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the bar is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=500, help="of each kind")
    parser.add_argument("--folder", type=Path, help="on the disk that is measured; by default that of temporary files")
    options = parser.parse_args(argv)
    with TemporaryDirectory(dir=options.folder) as name:
        root, port = Path(name), free_port()
        (root / "mlruns").mkdir()
        uri, log = f"http://127.0.0.1:{port}", root / "server.log"
        with server(f"sqlite:///{root}/mlruns/mlflow.db", port, log) as process:
            wait_until_ready(process, uri, log)
            with open_tracker(Settings(root=root, workspace=root, tracking_uri=uri)) as tracker:
                with tracked(tracker.open_run(TRAIN, "reports")) as run:
                    answering = report(run, options.reports, first=1)
                    os.killpg(process.pid, signal.SIGSTOP)
                    hanging = report(run, options.reports, first=1 + options.reports)
                os.killpg(process.pid, signal.SIGCONT)
    print(f"a report of {METRICS} metrics, in ms, of {options.reports}:")
    for title, times_ms in (("the server answers", answering), ("the server hangs", hanging)):
        print(f"  {title:<20} median {statistics.median(times_ms):.2f}, 99th percentile {percentile_99(times_ms):.2f}")
    print(measured_where(ROOT, "reports go to a file, which is synced"))
    return 0 if percentile_99(hanging) <= BAR_MS else 1


def report(run: Run, count: int, first: int) -> list[float]:
    """Log epochs, and return how long each took (ms)."""
    times_ms = []
    for epoch in range(first, first + count):
        began = time.perf_counter()
        run.log_metrics({f"metric/{number}": epoch / (number + 1) for number in range(METRICS)}, step=epoch)
        times_ms.append(1000 * (time.perf_counter() - began))
    return times_ms


def percentile_99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


if __name__ == "__main__":
    sys.exit(main())
