"""Where everything of a study lies in its folder.

A study is a folder:

- `study.json`: its parameters, the digest of its records, its starting points, which code began it, and whether a
  stage of the pipeline did;
- `journal.log`: Optuna's study, written line by line: what was suggested, how good each trial was after each epoch,
  what was decided then, and what came of it;
- `seconds.json`: how long it has run, over all its sessions;
- `finished`: there once it has ended and its results have been taken; `--resume` puts `reopened` in its place;
- `best.keras`: where its trials are the folds of a training, their ensemble, until that is elsewhere;
- `session.json`: where the study is kept on a server too, how often it was gone on with, and by whom;
- `lock`: held by the process that runs it; `runner`: which one that is; `ray-*/`: what Ray writes while it runs;
- `trials/007/`: the checkpoints of a trial while it runs; `values.json` if its values have changed since they were
  suggested; `change.json` if it is to take over the weights of another one, and `cloned.json` once it has;
  `started.json` and `steps`, the process that it was started in last and how far that is, and `trace.txt`, where that
  hung; `outcome.json` once it has ended; `recorded` once the tracker has the outcome.
"""

from dataclasses import dataclass
from pathlib import Path

from mis.train.checkpoint import Checkpoints
from mis.tune.trial import trial_name

STUDY_JSON = "study.json"
TRIALS = "trials"
FINISHED = "finished"
RAY_STATE_PREFIX = "ray-"


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial."""

    path: Path

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.path.name)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of its training."""
        return Checkpoints(self.path)

    @property
    def seen(self) -> Path:
        """The folder with what was seen of its checkpoints where these are kept on a server."""
        return self.path / "seen"

    @property
    def values(self) -> Path:
        """The file of the values that it has in place of those that were suggested."""
        return self.path / "values.json"

    @property
    def change(self) -> Path:
        """The file that says whose weights, and which values, it is to take over."""
        return self.path / "change.json"

    @property
    def cloned(self) -> Path:
        """The file that says whose weights it has taken over last."""
        return self.path / "cloned.json"

    @property
    def started(self) -> Path:
        """The file that says which process, on which node, the trial was started in last."""
        return self.path / "started.json"

    @property
    def steps(self) -> Path:
        """The file that says how many steps that process has done."""
        return self.path / "steps"

    @property
    def trace(self) -> Path:
        """The file in which that process writes down where it is when it is asked for."""
        return self.path / "trace.txt"

    @property
    def outcome(self) -> Path:
        """The file that says what became of the trial: it has ended if this file is there."""
        return self.path / "outcome.json"

    @property
    def recorded(self) -> Path:
        """The file that says that the tracker has the outcome."""
        return self.path / "recorded"


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study."""

    path: Path

    @property
    def study(self) -> Path:
        """The file of its parameters."""
        return self.path / STUDY_JSON

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.path / "journal.log"

    @property
    def seconds(self) -> Path:
        """The file of the seconds that it has run."""
        return self.path / "seconds.json"

    @property
    def finished(self) -> Path:
        """The mark of a study that has ended, and whose results have been taken."""
        return self.path / FINISHED

    @property
    def reopened(self) -> Path:
        """The mark of a study that was finished and goes on with another budget."""
        return self.path / "reopened"

    @property
    def was_finished(self) -> bool:
        """Whether the study's results have been taken once."""
        return self.finished.exists() or self.reopened.exists()

    @property
    def lock(self) -> Path:
        """The file that is locked by the process that runs the study."""
        return self.path / "lock"

    @property
    def runner(self) -> Path:
        """The file that says which process that is, for people."""
        return self.path / "runner"

    @property
    def ray_states(self) -> list[Path]:
        """The folders of Ray's own notes that processes which were killed have left."""
        return sorted(self.path.glob(f"{RAY_STATE_PREFIX}*"))

    def trial(self, number: int) -> TrialFolder:
        """Return the folder of a trial; it need not be there."""
        return TrialFolder(self.path / TRIALS / trial_name(number))

    @property
    def trials(self) -> list[TrialFolder]:
        """The folders of all trials, in the order of their numbers."""
        return sorted(map(TrialFolder, self.path.glob(f"{TRIALS}/[0-9]*")), key=lambda trial: trial.number)
