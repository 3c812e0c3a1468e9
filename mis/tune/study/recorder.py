"""From the trials of a study to their runs in the tracker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from mis.track.base import TUNE, Run, Tracker
from mis.track.names import EPOCH_S, ERROR_TAG, STATE_TAG, STUDY_TAG, TRACING_S, TRIAL_S, TRIAL_TAG
from mis.train.allocate import Share
from mis.train.in_force import in_force
from mis.tune.epochs import EPOCH, metrics_of, reports
from mis.tune.study.store import BUDGET, StudyStore
from mis.tune.trial import FOLD, Trial, TrialState, Values

KILLED = "killed"
"""The tag `mis.state` of a trial that is interrupted, after MLflow's own status KILLED."""


@dataclass
class Recorder:
    """Records trials as runs below their study's.

    What the tracker has taken is on disk, and is delivered by itself. A process that is killed between an outcome, what
    is recorded of it, and the mark that it is recorded, records it once more: what the run has is not doubled.

    Each method raises DiskFullError where the disk is full.

    Attributes:
        store: The study.
        share: What each trial has of the devices.
        tracker: Where the runs are.
        parent: The study's run.
        describe: Records where a run comes from.
    """

    store: StudyStore
    share: Share
    tracker: Tracker
    parent: Run
    describe: Callable[[Run], None]
    _study_tags: dict[str, str] = field(default_factory=dict)
    _runs: dict[int, Run] = field(default_factory=dict)
    _logged: dict[int, int] = field(default_factory=dict)

    def begin(self, trial: Trial) -> None:
        """Start a trial's run, or go on with it."""
        self._run(trial)

    def log_epoch(self, trial: Trial, report: Mapping[str, float], extra: Mapping[str, float]) -> None:
        """Record an epoch, and those before it that are not recorded yet.

        Args:
            trial: The trial.
            report: The worker's report of the epoch.
            extra: More metrics of it.
        """
        run, epoch = self._run(trial), int(report[EPOCH])
        logged = self._logged.get(trial.number, 0)
        if epoch > logged + 1:  # a worker died before it reported them
            for missed in reports(self.store.checkpoints(trial.number).history())[logged : epoch - 1]:
                run.log_metrics(metrics_of(missed), step=int(missed[EPOCH]))
        run.log_metrics({**metrics_of(report), **extra}, step=epoch)
        self._logged[trial.number] = max(logged, epoch)

    def log_values(self, trial: Trial, changed: Values) -> None:
        """Record values that have changed since the trial was begun."""
        self._run(trial).log_params(changed)

    def end(self, trial: Trial) -> None:
        """Record what became of a trial; it comes with its history."""
        self._record(trial)
        self.forget(trial.number)

    def leave(self, trial: Trial) -> None:
        """Record that a trial was interrupted."""
        run = self._run(trial)
        run.set_tags({STATE_TAG: KILLED})
        run.finish("KILLED")

    def tag_study(self, tags: Mapping[str, str]) -> None:
        """Record tags of the study itself."""
        self._study_tags |= tags
        self._tag_study()

    def record_rest(self) -> None:
        """Record what became of the trials, and of the study, that is not recorded yet.

        Raises:
            DiskFullError: The disk is full.
        """
        for trial in self.store.trials():
            if not self.store.is_recorded(trial.number):
                self._record(trial)
            self.forget(trial.number)
        self._tag_study()

    def _tag_study(self) -> None:
        if self._study_tags:
            self.parent.set_tags(self._study_tags)
            self._study_tags = {}

    def _run(self, trial: Trial) -> Run:
        if trial.number not in self._runs:
            self._runs[trial.number] = self._start_run(trial)
        return self._runs[trial.number]

    def _start_run(self, trial: Trial) -> Run:
        key = {STUDY_TAG: self.store.name, TRIAL_TAG: trial.name}
        params = self.store.params
        # Not checked here: values that do not go together are found by the trial, and fail it alone.
        values = {**params.flatten(), **trial.values, "train.epochs": params.tune.epochs}
        values = {name: value for name, value in values.items() if name not in BUDGET}  # the study's, and may change
        train = {name.removeprefix("train."): value for name, value in values.items() if name.startswith("train.")}
        rule = in_force(params.train.model_copy(update=train), params.distribute, self.share.replicas)
        name = f"fold-{trial.values[FOLD]}" if self.store.has_folds else f"trial-{trial.name}"
        run = self.tracker.open_run(TUNE, name, key=key, params={**values, **rule}, parent=self.parent)
        self.describe(run)
        return run

    def _record(self, trial: Trial) -> None:
        run = self._run(trial)
        run.log_params(trial.values)  # those too that changed while the disk was full
        # Of a trial of an earlier process all of them: what the run has is not recorded twice.
        for report in reports(list(map(dict, trial.history)))[self._logged.get(trial.number, 0) :]:
            run.log_metrics(metrics_of(report), step=int(report[EPOCH]))
        run.set_tags({STATE_TAG: str(trial.state), **({ERROR_TAG: trial.error} if trial.error else {})})
        epochs_s = [epoch[EPOCH_S] for epoch in trial.history if EPOCH_S in epoch]
        tracing = {TRACING_S: max(0.0, epochs_s[0] - median(epochs_s[1:]))} if len(epochs_s) > 1 else {}
        run.log_metrics({TRIAL_S: trial.elapsed_s, **tracing})
        run.finish("FAILED" if trial.state is TrialState.FAILED else "FINISHED")
        self.store.set_recorded(trial.number)

    def forget(self, number: int) -> None:
        """Drop what is kept of a trial that has ended: a run in MLflow keeps every point that it has logged."""
        self._runs.pop(number, None)
        self._logged.pop(number, None)
