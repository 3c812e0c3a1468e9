"""A console that is told of trials as a search goes: they begin, report epochs, and end."""

from dataclasses import replace

from mis.tune.console.table import StudyConsole
from mis.tune.trial import Trial, TrialState


def ended_before(number, values, *, dice, best):
    """Return a trial of an earlier session."""
    last, first = {"val/dice": dice}, {"val/dice": best}
    return Trial(number, values, TrialState.COMPLETED, epochs=8, last=last, best=first, elapsed_s=40.0)


class Shown(StudyConsole):
    """A console with the trials that it shows."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.trials = {}

    def begin(self, name, values):
        """Show a trial that begins, or begins again after its last epoch."""
        known = self.trials.get(name, Trial(int(name), values))
        self._show(name, replace(known, values=values, state=TrialState.RUNNING, error=""))

    def report(self, name, epoch, dice, best, epoch_s):
        """Show the trial after an epoch."""
        last = {"val/dice": dice, "time/epoch_s": epoch_s}
        self._show(name, replace(self.trials[name], epochs=epoch, last=last, best={"val/dice": best}))

    def end(self, name, state, dice, seconds, note=""):
        """Show the trial when it has ended, with its best Dice."""
        best = {} if dice is None else {"val/dice": dice}
        known = self.trials.get(name, Trial(int(name), {}))
        self._show(name, replace(known, state=TrialState(state), best=best, elapsed_s=seconds, error=note))

    def _show(self, name, trial):
        self.trials[name] = trial
        self.show(trial)
