"""What a search of thousands of trials costs its driver: time a trial, memory, and the time to go on after a kill.

`python benchmarks/driver_load.py` runs a study of 2,000 trials of 20 epochs with all that a study has (Ray Tune,
Optuna, the store on disk, the outbox and MLflow in a SQLite file), where the training takes no time: a worker writes a
checkpoint and reports. For each tenth of the trials it prints the CPU seconds of the driver's process a trial, and its
memory at their end. Then the study goes on in a new process, as after a kill, with one trial more: it prints how long
that takes until the trial begins.

With `--write` it puts the table into docs/search.md (then nothing may be uncommitted). About half an hour on two cores.

The bars: the time a trial in the last tenth is that in the second one, within a fifth; memory grows by less than 10 %
after the second tenth; the study goes on within 10 s.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from data_parallel import make_records
from page import clean_commit, measured_where, write_figures

from mis.data.records.reader import read_records
from mis.params.load import Params, load_params
from mis.settings import Settings
from mis.track.names import EPOCH_S, MODEL_PARAMETERS, TOTAL_S, TRAIN_LOSS, VAL_DICE
from mis.track.recording import open_tracker, reader
from mis.tune import session
from mis.tune.ray.driver import run_study
from mis.tune.ray.task import TrialTask
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial

ROOT = Path(__file__).parents[1]
PARTS = 10


def train_at_once(task: TrialTask) -> None:
    """Train a trial in no time: its Dice rises towards what its number says."""
    best = 0.5 + 0.4 * ((task.number * 0.618) % 1)
    history = task.checkpoints.history()
    while len(history) < task.store.tune.epochs:
        epoch = len(history) + 1
        figures = {VAL_DICE: best * (1 - 0.5**epoch), EPOCH_S: 0.01, TOTAL_S: 0.01 * epoch, MODEL_PARAMETERS: 1.0}
        history = [*history, {**figures, TRAIN_LOSS: 1 - figures[VAL_DICE]}]
        task.checkpoints.write([np.zeros(2)], lambda path: path.write_bytes(b"model"), history, improved=True)
        task.report(history)


@dataclass
class Load:
    """What the driver had used at the end of each part of the trials.

    Attributes:
        trials: How many trials the study has.
        cpu_s: CPU seconds of this process.
        memory_bytes: Its memory.
        elapsed_s: Seconds since the first trial began.
    """

    trials: int
    cpu_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    elapsed_s: list[float] = field(default_factory=list)
    ended: int = 0

    def note(self) -> None:
        """Note what is used now."""
        self.cpu_s.append(time.process_time())
        self.memory_bytes.append(psutil.Process().memory_info().rss)
        self.elapsed_s.append(time.monotonic())

    def note_end(self) -> None:
        """Note the end of a trial."""
        self.ended += 1
        if self.ended * PARTS % self.trials < PARTS:
            self.note()
            print(f"{self.ended} trials", file=sys.stderr, flush=True)

    def rows(self) -> list[tuple[int, float, float, float]]:
        """Return for each part: trials so far, CPU ms a trial, wall-clock ms a trial, memory in MB."""
        each = self.trials / PARTS
        return [
            (
                round(each * (part + 1)),
                1000 * (self.cpu_s[part + 1] - self.cpu_s[part]) / each,
                1000 * (self.elapsed_s[part + 1] - self.elapsed_s[part]) / each,
                self.memory_bytes[part + 1] / 2**20,
            )
            for part in range(PARTS)
        ]


def params_of(trials: int, epochs: int, sampler: str) -> Params:
    """Return the parameters of the study."""
    return load_params(
        ROOT / "pipelines" / "plain.yaml",
        [
            f"tune.num_samples={trials}",
            f"tune.epochs={epochs}",
            f"train.patience={epochs}",
            f"tune.sampler.name={sampler}",
            "tune.space={train.learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}",
        ],
    )


def search(root: Path, params: Params, load: Load | None) -> list[Trial]:
    """Run the study in a project's folder, or go on with it, and note what its driver uses."""
    settings = Settings(
        root=root, workspace=root, tracking_uri=f"sqlite:///{root}/mlruns/mlflow.db", records_folder=root / "records"
    )
    records = read_records(settings.records)
    session.run_study = partial(run_study, training=train_at_once)  # type: ignore[attr-defined]
    begin, ended = StudyMonitor.begin, StudyMonitor.ended

    def noting_begin(self: StudyMonitor, trial: Trial) -> None:
        if load is not None and not load.cpu_s:
            load.note()
        begin(self, trial)

    def noting_end(self: StudyMonitor, number: int, error: str | None = None) -> None:
        ended(self, number, error)
        if load is not None:
            load.note_end()

    StudyMonitor.begin, StudyMonitor.ended = noting_begin, noting_end  # type: ignore[method-assign]
    path = session.studies_folder(settings) / "study"
    with open_tracker(settings) as tracker:
        store = StudyStore.open(path) if path.exists() else StudyStore.create(path, params, records.digest)
        context = session.StudyContext(records, tracker, reader(settings), settings, draw=lambda *_: ())
        return list(session.run(store, context, params).trials)


def go_on(root: Path, params: Params) -> None:
    """Go on with the study, and print how long it takes until a trial begins; Ray's start is told apart."""
    from ray import init

    begun, started = time.monotonic(), [0.0]

    def starting(*arguments: object, **options: object) -> object:
        before = time.monotonic()
        done = init(*arguments, **options)
        started[0] += time.monotonic() - before
        return done

    import ray

    ray.init = starting

    def begin(self: StudyMonitor, trial: Trial) -> None:  # noqa: ARG001
        print(f"{time.monotonic() - begun:.1f} {started[0]:.1f}", flush=True)
        os._exit(0)

    StudyMonitor.begin = begin  # type: ignore[method-assign]
    search(root, params, None)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where that is asked for; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--sampler", default="random", help="tpe looks at all trials for each suggestion")
    parser.add_argument("--write", action="store_true", help="put the table into docs/search.md")
    parser.add_argument("--go-on", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.go_on is not None:
        go_on(options.go_on, params_of(options.trials + 1, options.epochs, options.sampler))
        return 0
    if options.write:
        clean_commit(ROOT)
    with TemporaryDirectory() as name:
        root = Path(name)
        make_records(root, 4)
        load = Load(options.trials)
        search(root, params_of(options.trials, options.epochs, options.sampler), load)
        again = [sys.executable, __file__, "--go-on", root, "--trials", options.trials, "--epochs", options.epochs]
        done = subprocess.run(
            [*map(str, again), "--sampler", options.sampler], capture_output=True, text=True, check=True
        )
        resume_s, ray_s = map(float, done.stdout.split()[-2:])
    rows = load.rows()
    lines = ["| trials so far | CPU of the driver, ms a trial | time, ms a trial | memory, MB |", "|---|---|---|---|"]
    lines += [f"| {trials} | {cpu:.0f} | {wall:.0f} | {memory:.0f} |" for trials, cpu, wall, memory in rows]
    lines += [
        "",
        f"Going on after all of them: {resume_s:.1f} s until the next trial begins, {ray_s:.1f} s of it Ray's start.",
    ]
    where = f"{options.trials} trials of {options.epochs} epochs, sampler {options.sampler}, ASHA"
    text = "\n".join([measured_where(ROOT, where), "", *lines])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "search.md", "benchmarks/driver_load.py", text)
    steady = rows[-1][1] <= 1.2 * rows[1][1] and rows[-1][3] <= 1.1 * rows[1][3]
    return 0 if steady and resume_s <= 10 else 1


if __name__ == "__main__":
    sys.exit(main())
