"""What a trial of a search costs beside its training, what stays of it in memory, and what two at once bring.

`python benchmarks/trial_overhead.py` runs searches as `python -m mis.tune` does, on the phantom of
params.yaml, each trial on one device (a CPU thread, or a GPU):

- overhead: 16 trials one after another. What they took beyond their training, divided by 16: starting the
  process, imports, building and tracing the network, reading, checkpoints' and trackers' overhead between
  trials. An epoch of training takes what the epochs from the second on took, as a median. Its peer is what a
  plain Tune run pays with each trial: a process that imports TensorFlow and Keras.
- memory: 30 small trials in one process; the highest memory that the process ever had, after each.
- at once: trials an hour with as many at once as there are devices, against one at a time, in turn over
  several rounds. The first trial of each process, which starts it, does not count.

It prints a table and, with `--write`, puts it into docs/search.md (then nothing may be uncommitted). About
15 minutes on two cores.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from page import clean_commit, measured_where, write_figures

from mis.data.layouts.msd import read_msd
from mis.data.phantom.write import make_phantom
from mis.data.records.writer import write_records
from mis.params.load import Params, load_params
from mis.report.study.figures import write_figures as write_study_figures
from mis.settings import Settings, cores
from mis.track.names import EPOCH_S, HOST_PEAK_BYTES
from mis.tune.result import StudyResult
from mis.tune.session import tune

ROOT = Path(__file__).parents[1]
TRIALS, EPOCHS = 16, 4
MEMORY_TRIALS = 30
AT_ONCE_TRIALS = 8
IMPORTS = "import tensorflow, keras"
SPACE = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
SMALL = {"model.depth": 1, "model.base_filters": 4}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of trials at once against one at a time")
    parser.add_argument("--write", action="store_true", help="put the table into docs/search.md")
    options = parser.parse_args(argv)
    if options.write:
        clean_commit(ROOT)
    with TemporaryDirectory() as name:
        bench = Bench(Path(name))
        lines = [*bench.overhead(), *bench.memory(), *bench.at_once(options.rounds)]
    where = measured_where(ROOT, "a device is one thread; the phantom and the network of params.yaml")
    text = "\n".join([where, "", "| | measured |", "|---|---|", *lines])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "search.md", "benchmarks/trial_overhead.py", text)
    return 0


class Bench:
    """A project in a temporary folder, in which searches are run."""

    def __init__(self, folder: Path) -> None:
        """Make the phantom and its records."""
        self.params = load_params(ROOT / "params.yaml")
        make_phantom(folder / self.params.data.root, self.params.phantom, jobs=cores())
        self.settings = Settings(
            root=folder, workspace=folder, tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db", devices=1
        )
        write_records(read_msd(folder / self.params.data.root), self.params.data, self.settings.records, jobs=cores())

    def overhead(self) -> list[str]:
        """Return the line of what a trial costs beside its training."""
        imports_s = [_seconds_of(sys.executable, "-c", IMPORTS) for _ in range(3)]
        study, seconds = self.search({"tune.num_samples": TRIALS, "tune.epochs": EPOCHS})
        epoch_s = _steady_epoch_s(study)
        beside_s = (study.elapsed_s - TRIALS * EPOCHS * epoch_s) / TRIALS
        inside_s = [trial.elapsed_s - EPOCHS * epoch_s for trial in study.trials]
        study.finish()
        return [
            f"| overhead of a trial, amortised over {TRIALS} | {beside_s:.2f} s (a trial trains for "
            f"{EPOCHS * epoch_s:.1f} s; the first trial of the process {inside_s[0]:.1f} s, the others "
            f"{_spread(inside_s[1:])} s; the whole command {seconds:.0f} s) |",
            f"| what a process for each trial pays for imports alone | {_spread(imports_s)} s |",
        ]

    def memory(self) -> list[str]:
        """Return the line of what stays of a trial in its process' memory."""
        study, _ = self.search({**SMALL, "tune.num_samples": MEMORY_TRIALS, "tune.epochs": 2})
        peaks_mb = [trial.history[-1][HOST_PEAK_BYTES] / 1e6 for trial in study.trials]
        study.finish()
        third = MEMORY_TRIALS // 3
        growth = [(peaks_mb[last] - peaks_mb[last - third + 1]) / (third - 1) for last in (2 * third - 1, -1)]
        return [
            f"| highest memory of the process after trial 1, {third}, {2 * third}, {MEMORY_TRIALS} | "
            f"{', '.join(f'{peaks_mb[number]:.0f}' for number in (0, third - 1, 2 * third - 1, -1))} MB |",
            f"| growth a trial, in the second and the last third | {growth[0]:.1f} and {growth[1]:.1f} MB |",
        ]

    def at_once(self, rounds: int) -> list[str]:
        """Return the line of trials an hour."""
        device_count = cores()
        rates = [{devices: self.rate(devices) for devices in (1, device_count)} for _ in range(rounds)]
        ratios = [rate[device_count] / rate[1] for rate in rates]
        single = _spread([rate[1] for rate in rates])
        return [
            f"| trials an hour with {device_count} at once, against one at a time ({single}) | x{_spread(ratios)} |"
        ]

    def rate(self, devices: int) -> float:
        """Return how many trials an hour a search has on so many devices."""
        study, _ = self.search({"tune.num_samples": AT_ONCE_TRIALS, "tune.epochs": EPOCHS}, devices)
        per_hour = _trials_per_hour(study, devices)
        study.finish()
        return per_hour

    def search(self, values: Mapping[str, object], devices: int = 1) -> tuple[StudyResult, float]:
        """Run a search on so many devices; return it, and the seconds of all of it."""
        fixed = {"tune.space": SPACE, "tune.sampler.name": "random", "tune.scheduler.name": "none", "tune.keep": 1}
        params: Params = self.params.override({**fixed, "train.patience": 99, **values})
        begun = time.perf_counter()
        study = tune(params, replace(self.settings, devices=devices), draw=write_study_figures)
        return study, time.perf_counter() - begun


def _steady_epoch_s(study: StudyResult) -> float:
    """Return what an epoch takes once the network is traced."""
    return statistics.median(epoch[EPOCH_S] for trial in study.trials for epoch in trial.history[1:])


def _trials_per_hour(study: StudyResult, devices: int) -> float:
    """Return the rate of all trials but the first of each process, from when their outcomes were written."""
    ends = sorted(path.stat().st_mtime for path in study.store.path.glob("trials/*/outcome.json"))
    return 3600 * (len(ends) - devices) / (ends[-1] - ends[devices - 1])


def _seconds_of(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _spread(values: Sequence[float]) -> str:
    """Return a median with its spread.

    >>> _spread([1.0, 2.0, 4.0])
    '2.00 (1.00 to 4.00)'
    """
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
