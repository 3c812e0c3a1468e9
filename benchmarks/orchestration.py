"""What the four modes reach on 32 and 128 devices with the real code of a search, where the training is emulated.

`python benchmarks/orchestration.py` runs studies with all that a study has (Ray Tune, Optuna, MLflow, the store on
disk, the allocation, checkpoints of the network's size) on as many devices as a Ray cluster of this machine is told to
have. In place of training, a trial's worker waits: for each step as long as a step was measured to take (in a training
of the project's U-Net on phantoms, at the start), times a factor that gives the trials their length: lognormal, with a
sigma of .3. On k devices it waits so much less as docs/data_parallel.md has measured for two, for each doubling.

It compares each mode's time with the ideal: the same trials, allocated by the same function, where nothing but the
steps takes time. What is missing is lost to orchestration. The clock starts when the first trials have their processes,
as in the measured comparison; how long that takes is told beside. `--json FILE` has the figures as soon as a study has
ended, also for `python -m mis.scaling simulate --against FILE`. `--write` puts the table into docs/scaling.md (then
nothing may be uncommitted); `--read FILE ...` takes what was measured before, and measures nothing.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from math import exp
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from data_parallel import make_records
from page import clean_commit, measured_where, write_figures
from tqdm import tqdm

from mis.data.records.source import RecordsSource
from mis.files import read_json, write_json
from mis.params.load import Params, load_params
from mis.params.scaling import MODES, Mode, each_of
from mis.scaling.timeline import Stretch, Timeline
from mis.settings import load_settings
from mis.track.base import SCALING, TUNE, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import (
    DEVICE_UTILISATION,
    DEVICES,
    EFFICIENCY,
    ELAPSED_S,
    EPOCH_S,
    KIND_TAG,
    MODE_TAG,
    SPEEDUP,
    TOTAL_S,
    TRAIN_LOSS,
    VAL_DICE,
)
from mis.train.allocate import allocate
from mis.train.cluster import cluster
from mis.train.gang import run_gang
from mis.tune.allocation import Cluster, Demand, Place, Speeds, assign, sizes_for
from mis.tune.ray.driver import run_study
from mis.tune.ray.task import TrialTask
from mis.tune.study.store import StudyStore

ROOT = Path(__file__).parents[1]
SIGMA = 0.3
"""Of the logarithm of a trial's length."""
PER_DOUBLING = 0.945
"""The efficiency of two devices, as docs/data_parallel.md has it for group norm, mirrored, the same global batch."""
STEPS = 16
"""Of an epoch."""
STATE_VALUES = 3 * 350_000
"""Weights of the paper's network, and Adam's two moments of each."""

_started_here = False
"""Whether this process has had a trial before: later ones do not wait for the others."""


@dataclass(frozen=True)
class Emulation:
    """What a trial's worker does in place of training.

    Attributes:
        lengths_s: Seconds of each trial on one device, by its number.
        epochs: Epochs of each.
        steps: Measured steps, their mean being 1.
        first: How many trials begin together.
        folder: Where processes say that they are there, and trials when they had which devices.
    """

    lengths_s: tuple[float, ...]
    epochs: int
    steps: tuple[float, ...]
    first: int
    folder: Path

    def epoch_s(self, trial: int, epoch: int) -> float:
        """Return the seconds of an epoch, from 1, on one device."""
        draws = Random(f"{trial}-{epoch}")  # noqa: S311 - nothing secret
        return self.lengths_s[trial] / self.epochs * statistics.fmean(draws.choices(self.steps, k=STEPS))

    @property
    def speeds(self) -> Speeds:
        """How much faster a trial is on several devices."""
        return Speeds(per_doubling=PER_DOUBLING)

    def __call__(self, task: TrialTask) -> None:
        """Wait for the epochs that a trial has left, and write and report each as a training would."""
        self._wait_for_the_others(task.number)
        begun, replicas = time.time(), task.share.replicas
        history = task.checkpoints.history()
        state = [np.zeros(STATE_VALUES, np.float32)]
        first_epoch = len(history)
        try:
            while len(history) < self.epochs:
                seconds = self.epoch_s(task.number, len(history) + 1) / self.speeds(replicas)
                time.sleep(seconds)
                dice = 1 - 0.5 ** len(history) * (1 - 0.1 / (1 + task.number))
                total_s = (history[-1][TOTAL_S] if history else 0.0) + seconds
                metrics = {TRAIN_LOSS: 1 - dice, VAL_DICE: dice, EPOCH_S: seconds, TOTAL_S: total_s}
                history = [*history, {**metrics, DEVICES: float(replicas)}]
                task.checkpoints.write(state, lambda path: path.write_bytes(b"emulated"), history, improved=True)
                self._note(task.number, replicas, begun, len(history) - first_epoch)
                task.report(history)
        finally:
            self._note(task.number, replicas, begun, len(history) - first_epoch)

    def _wait_for_the_others(self, number: int) -> None:
        global _started_here  # noqa: PLW0603 - of this process
        if not _started_here:
            (self.folder / f"ready-{number}").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.05)
        _started_here = True

    def _note(self, number: int, devices: int, begun: float, epochs: int) -> None:
        noted = {"trial": number, "devices": devices, "begin": begun, "end": time.time(), "epochs": epochs}
        write_json(self.folder / f"stretch-{number:04d}-{begun:.6f}.json", noted)

    def start_when_all_are_there(self) -> None:
        """Let the first trials begin once all of them have a process."""
        while len(list(self.folder.glob("ready-*"))) < self.first:
            time.sleep(0.1)
        write_json(self.folder / "go", time.time())

    def timeline(self, devices: int) -> tuple[Timeline, float]:
        """Return who had how many devices when, from the start of the clock on, and when that was."""
        go = float(json.loads((self.folder / "go").read_text(encoding="utf-8")))
        noted = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("stretch-*.json"))]
        stretches = [
            Stretch(one["trial"], Place(((0, one["devices"]),)), one["begin"] - go, one["end"] - go, one["epochs"])
            for one in noted
        ]
        return Timeline((devices,), tuple(sorted(stretches, key=lambda part: part.begin_s))), go


@dataclass(frozen=True)
class Outcome:
    """What a mode reached.

    Attributes:
        mode: The mode.
        devices: How many devices.
        each: Devices that a trial begins with.
        elapsed_s: Seconds of all trials.
        ideal_s: Seconds that they would take if nothing but steps took time.
        one_device_s: Seconds of all steps on one device, one after another.
        cold_s: Seconds before the clock started.
        restarts: How often a trial was given other devices.
        utilisation: The part of the devices' time in which they had a trial.
        lengths_s: Seconds of each trial's steps on one device.
    """

    mode: str
    devices: int
    each: int
    elapsed_s: float
    ideal_s: float
    one_device_s: float
    cold_s: float
    restarts: int
    utilisation: float
    lengths_s: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """How many times faster than one device."""
        return self.one_device_s / self.elapsed_s

    @property
    def ideal_speedup(self) -> float:
        """How many times faster it would be if nothing but steps took time."""
        return self.one_device_s / self.ideal_s

    @property
    def lost(self) -> float:
        """The part of the time that orchestration takes."""
        return 1 - self.ideal_s / self.elapsed_s


class Benchmark:
    """What all modes on one number of devices share."""

    def __init__(self, devices: int, options: argparse.Namespace, steps: Sequence[float], folder: Path) -> None:
        self.devices = devices
        self.options = options
        self.steps = tuple(steps)
        self.folder = folder
        trials = options.trials or devices
        draws = Random(options.seed)  # noqa: S311
        # The mean of a lognormal is exp(sigma**2 / 2) times its median.
        median_s = options.mean_s / exp(SIGMA**2 / 2)
        self.lengths_s = tuple(median_s * exp(SIGMA * draws.gauss(0, 1)) for _ in range(trials))

    def each(self, mode: Mode) -> int:
        """Return how many devices a trial of a mode begins with."""
        return each_of(mode, self.devices)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of devices that an elastic trial may have."""
        return sizes_for(self.devices, self.devices)

    def params(self, mode: Mode) -> Params:
        """Return the parameters of a study."""
        return load_params(ROOT / "pipelines" / "plain.yaml").override(
            {
                "tune.num_samples": len(self.lengths_s),
                "tune.epochs": self.options.epochs,
                "tune.devices_per_trial": self.each(mode),
                "tune.allocation": "elastic" if mode == "elastic" else "fixed",
                "tune.sampler": {"name": "tpe", "seed": 0},
                "tune.scheduler.name": "none",
                "tune.space": {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
                "train.batch_size": self.devices,
                "train.patience": 10_000,
            }
        )

    def emulation(self, mode: Mode, folder: Path) -> Emulation:
        """Return what the workers of a mode do."""
        first = min(len(self.lengths_s), self.devices // self.each(mode))
        return Emulation(self.lengths_s, self.options.epochs, self.steps, first, folder)

    def run(self, mode: Mode, records: Path, nodes: Sequence[Any]) -> tuple[Outcome, Timeline]:
        """Run a study, and return what it reached."""
        folder = self.folder / mode
        folder.mkdir(parents=True)
        emulation = self.emulation(mode, folder)
        params = self.params(mode)
        settings = replace(load_settings(start=ROOT), tracking_uri=f"sqlite:///{folder}/mlflow.db")
        tracker = MlflowTracker(settings)
        store = StudyStore.create(folder / "study", params)
        share = allocate(nodes, params.tune.devices_per_trial)
        begun = time.time()
        starter = threading.Thread(target=emulation.start_when_all_are_there, daemon=True)
        starter.start()
        with store.locked(), tracked(tracker.start_run(TUNE, mode)) as study:
            source = RecordsSource(records)
            trials = run_study(store, share, records=source, tracker=tracker, study=study, training=emulation)
        if len(trials) != len(self.lengths_s) or any(trial.epochs != self.options.epochs for trial in trials):
            raise RuntimeError(f"{mode}: not every trial had all its epochs")
        timeline, go = emulation.timeline(self.devices)
        steps_s = [
            sum(emulation.epoch_s(number, epoch) for epoch in range(1, self.options.epochs + 1))
            for number in range(len(self.lengths_s))
        ]
        outcome = Outcome(
            mode=mode,
            devices=self.devices,
            each=self.each(mode),
            elapsed_s=max(stretch.end_s for stretch in timeline.stretches),
            ideal_s=ideal_s(emulation, self.devices, self.sizes if mode == "elastic" else (self.each(mode),)),
            one_device_s=sum(steps_s),
            cold_s=go - begun,
            restarts=len(timeline.stretches) - len(trials),
            utilisation=timeline.utilisation,
            lengths_s=tuple(steps_s),
        )
        return outcome, timeline


def ideal_s(emulation: Emulation, devices: int, sizes: tuple[int, ...]) -> float:
    """Return the seconds of all trials where nothing but steps takes time; devices change at the end of an epoch.

    Every trial looks after each of its epochs whether it has other devices by then, as in a search.
    """
    waiting = list(range(len(emulation.lengths_s)))
    places: dict[int, Place] = {}
    epochs = dict.fromkeys(waiting, 0)
    ends: list[tuple[float, int]] = []
    now_s = 0.0

    def begin_epoch(trial: int) -> None:
        seconds = emulation.epoch_s(trial, epochs[trial] + 1) / emulation.speeds(places[trial].devices)
        ends.append((now_s + seconds, trial))

    def plan() -> dict[int, Place]:
        def left_s(trial: int) -> float:
            return emulation.lengths_s[trial] * (1 - epochs[trial] / emulation.epochs)

        demands = [Demand(trial, left_s(trial), sizes, place) for trial, place in places.items()]
        demands += [Demand(trial, left_s(trial), sizes) for trial in waiting[:devices]]
        return assign(demands, Cluster((devices,)), emulation.speeds, restart_s=0.0)

    def begin_trials() -> None:
        planned = plan()
        for trial in [trial for trial in waiting[:devices] if trial in planned]:
            if sum(place.devices for place in places.values()) + planned[trial].devices <= devices:
                waiting.remove(trial)
                places[trial] = planned[trial]
                begin_epoch(trial)

    begin_trials()
    while ends:
        ends.sort(reverse=True)
        now_s, trial = ends.pop()
        epochs[trial] += 1
        if epochs[trial] == emulation.epochs:
            del places[trial]
            begin_trials()
            continue
        if len(sizes) > 1:
            places[trial] = plan()[trial]
        begin_epoch(trial)
    return now_s


def measure_steps(records: Path) -> list[float]:
    """Return the seconds of the steps of a real training on one device, their mean being 1."""
    seconds = run_gang(partial(_train, records=records), workers=1, threads=1, together=False)
    mean = statistics.fmean(seconds)
    return [second / mean for second in seconds]


def _train(worker: Any, records: Path) -> list[float]:  # noqa: ANN401 - a Worker
    import keras

    from mis.data.records.reader import read_records
    from mis.train.checkpoint import Checkpoints
    from mis.train.fit import fit
    from mis.train.strategy import make_strategy

    seconds: list[float] = []

    def note(batch: int, logs: object = None) -> None:  # noqa: ARG001 - as Keras calls it
        seconds.append(time.perf_counter())

    times = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    params = load_params(ROOT / "pipelines" / "plain.yaml").override({"model.norm": "group", "train.epochs": 3})
    with TemporaryDirectory() as folder:
        fit(
            params.model,
            params.train,
            read_records(records),
            strategy=make_strategy(worker.devices),
            checkpoints=Checkpoints(Path(folder)),
            callbacks=[times],
        )
    steps = len(seconds) // 3
    # Those of the last two epochs; the first step of an epoch has the validation before it.
    return [
        later - earlier
        for epoch in (1, 2)
        for earlier, later in zip(
            seconds[epoch * steps : (epoch + 1) * steps - 1],
            seconds[epoch * steps + 1 : (epoch + 1) * steps],
            strict=True,
        )
    ]


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the outcomes as a table in Markdown."""
    lines = [
        "| devices | mode | trials | seconds | speed-up | ideal | lost to orchestration | utilisation | restarts "
        "| before the clock, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        mode = f"{one.mode}, {one.each} each" if one.mode == "hybrid" else one.mode
        lines.append(
            f"| {one.devices} | {mode} | {len(one.lengths_s)} | {one.elapsed_s:.1f} | x{one.speedup:.1f} "
            f"| x{one.ideal_speedup:.1f} | {one.lost:.1%} | {one.utilisation:.0%} | {one.restarts} | {one.cold_s:.0f} |"
        )
    return lines


def log(outcomes: Sequence[Outcome]) -> None:
    """Record a run for each mode in the project's MLflow; the step of its metrics is the number of devices."""
    tracker = MlflowTracker(load_settings(start=ROOT))
    for mode in {outcome.mode for outcome in outcomes}:
        tags = {MODE_TAG: mode, KIND_TAG: "emulated"}
        with tracked(tracker.start_run(SCALING, f"{mode} parallelism, emulated", tags=tags)) as run:
            for one in (outcome for outcome in outcomes if outcome.mode == mode):
                figures = {
                    SPEEDUP: one.speedup,
                    EFFICIENCY: one.speedup / one.devices,
                    ELAPSED_S: one.elapsed_s,
                    DEVICE_UTILISATION: one.utilisation,
                    "ideal_speedup": one.ideal_speedup,
                    "lost_to_orchestration": one.lost,
                }
                run.log_metrics(figures, step=one.devices)


def as_json(outcome: Outcome, epochs: int) -> dict[str, object]:
    """Return an outcome as `python -m mis.scaling simulate --against` reads it."""
    return {
        "mode": outcome.mode,
        "devices": outcome.devices,
        "hybrid": outcome.each,
        "nodes": [outcome.devices],
        "trials": list(outcome.lengths_s),
        "epochs": epochs,
        "batch_size": outcome.devices,
        "speeds": {str(size): Speeds(per_doubling=PER_DOUBLING)(size) for size in sizes_for(outcome.devices, 1024)},
        "restart_s": 0.0,
        "elapsed_s": outcome.elapsed_s,
        "ideal_s": outcome.ideal_s,
        "one_device_s": outcome.one_device_s,
        "speedup": outcome.speedup,
        "restarts": outcome.restarts,
        "cold_s": outcome.cold_s,
        "utilisation": outcome.utilisation,
    }


def from_json(run: dict[str, Any]) -> Outcome:
    """Return the outcome that `as_json` has written."""
    renamed = {**run, "each": run["hybrid"], "lengths_s": tuple(run["trials"])}
    return Outcome(**{field.name: renamed[field.name] for field in fields(Outcome)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run all modes, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--trials", type=int, help="by default as many as devices")
    parser.add_argument("--mean-s", type=float, default=300.0, help="mean seconds of a trial on one device")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--read", type=Path, nargs="+", metavar="FILE", help="what --json has written")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    options = parser.parse_args(argv)
    if options.read:
        measured = [read_json(path) for path in options.read]
    else:
        if options.write:
            clean_commit(ROOT)
        measured = [measure(options)]
    where = dict.fromkeys(one["measured_on"] for one in measured)
    outcomes = [from_json(run) for one in measured for run in one["runs"]]
    text = "\n".join([*where, "", *table(outcomes)])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "scaling.md", "benchmarks/orchestration.py", text)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all studies, and return their figures; `--json` has them after each."""
    details = (
        f"emulated devices, {options.epochs} epochs a trial, {options.mean_s:g} s a trial on one device in the mean; "
        f"a doubling of a trial's devices has the efficiency {PER_DOUBLING:.1%}"
    )
    figures: dict[str, Any] = {"measured_on": measured_where(ROOT, details), "runs": []}
    outcomes = []
    with TemporaryDirectory() as name, tqdm(total=len(options.devices) * len(options.modes), unit="study") as bar:
        folder = Path(name)
        records = make_records(folder, cases=24)
        with cluster(None):
            steps = measure_steps(records)
        for devices in options.devices:
            with cluster(None, at_least=devices) as nodes:
                benchmark = Benchmark(devices, options, steps, folder / str(devices))
                for mode in options.modes:
                    bar.set_postfix_str(f"{mode} on {devices} devices")
                    outcome, _ = benchmark.run(mode, records, nodes)
                    outcomes.append(outcome)
                    figures["runs"].append(as_json(outcome, options.epochs))
                    if options.json:
                        write_json(options.json, figures)
                    bar.write("\n".join(table([outcome])[2:]))
                    bar.update()
    log(outcomes)
    return figures


if __name__ == "__main__":
    sys.exit(main())
