"""The sentences of the errors of a study, apart from what it computes: to mend one makes no search stale."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mis.errors import MisError
from mis.tune.study.bad_nodes import IN_A_ROW
from mis.tune.study.code import COMMIT, sources
from mis.tune.study.layout import STUDY_JSON
from mis.tune.trial import trial_name


def unknown_study(path: Path) -> MisError:
    """Return the error for a study that is not there, with the names of those that are."""
    known = sorted(study.parent.name for study in path.parent.glob(f"*/{STUDY_JSON}"))
    return MisError(
        f"a study that goes on must be in {path.parent}",
        got=path.name,
        do=f"there is {', '.join(known) or 'none'}; a new study can begin from an ended one: tune.start.study",
    )


def way_on(name: str, storage: str | None) -> str:
    """Return the command with which a study goes on.

    >>> way_on("mine", "s3://bucket/project")
    'python -m mis.tune --resume mine --set storage.path=s3://bucket/project'
    """
    where = "" if storage is None else f" --set storage.path={shlex.quote(storage)}"
    return f"python -m mis.tune --resume {name}{where}"


def other_version(study: Path) -> MisError:
    """Return the error for a study's file with parameters of another version."""
    return MisError(f"{study} has parameters that this version does not take", do="go on with the version of then")


def fetched(name: str, url: str) -> str:
    """Return the line for a study that another machine has gone on with."""
    return f"study {name} is fetched from {url}"


def not_sent(name: str, url: str) -> str:
    """Return the line for a study whose last changes could not be sent."""
    return f"{url} does not answer: study {name} is whole here, and is sent when it is gone on with"


def node_left_out(host: str, reason: str) -> str:
    """Return what is said of a node on which no trial comes to an epoch."""
    return f"node {host} is left out: {IN_A_ROW} trials in a row failed there before an epoch: {reason}"


def no_node_left(host: str, reason: str, way_on: str) -> MisError:
    """Return the error for a study whose trials fail wherever they begin."""
    return MisError(
        f"a trial must come to its first epoch, got {IN_A_ROW} in a row that did not on each node that can run one, "
        f"the last on {host}: {reason}",
        do=f"mend that, and `{way_on}` tries them again",
    )


def checkpoints_not_seen(number: int, folder: Path, epochs: int, found: int) -> MisError:
    """Return the error for a trial whose checkpoints are not where its worker says that it has written them."""
    return MisError(
        f"the checkpoints of trial {trial_name(number)} must be seen in {folder} within a minute",
        got=f"those of {found} epochs, where it has reported {epochs}",
        do="keep the project in a folder that all nodes share (MIS_ROOT); nothing of the other trials is lost",
    )


def unreadable_checkpoint(number: int, path: Path, *, one_was_left: bool) -> str:
    """Return what is said of a trial that has started again, and of a checkpoint that it could not read.

    Args:
        number: The trial's number.
        path: The checkpoint.
        one_was_left: Whether there was another one that could be read.
    """
    did = (
        "went on from the checkpoint before" if one_was_left else "had no checkpoint that could be read and began again"
    )
    return f"trial {trial_name(number)} {did}: {path} cannot be read"


def unreadable_file(path: Path, what: str) -> str:
    """Return what is said of a file that cannot be read, and of what that costs."""
    return f"{path} cannot be read: {what}"


def unreadable_study(study: Path, error: BaseException) -> MisError:
    """Return the error for a study whose file cannot be read."""
    return MisError(f"{study} must be readable: {error}", do="the other studies go on; begin this one anew")


def unreadable_journal(journal: Path, line: int) -> MisError:
    """Return the error for a journal with a line that is none of Optuna's."""
    return MisError(
        f"{journal} must have an entry of Optuna's in each line",
        got=f"another in line {line}",
        do="the other studies go on; begin this one anew, tune.start.study takes over what MLflow has of it",
    )


def begun_by_other_code(name: str, began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return what is said where a new study takes the place of one that other code began."""
    return (
        f"study {name} was begun by other code ({_difference(began, now)}): a new one begins; "
        f"`python -m mis.tune --resume {name}` goes on with it all the same"
    )


def folds_of_other_code(name: str, began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return what is said where the folds of a training that other code began are trained anew."""
    return f"the folds in {name} were begun by other code ({_difference(began, now)}): they are all trained anew"


def goes_on_with_other_code(began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return what is said where a study goes on with other code than began it."""
    return (
        f"warning: other code began this study ({_difference(began, now)}): its earlier trials may not be comparable; "
        "which code began it is recorded with its run"
    )


def _difference(began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return what tells the code that began a study from that of now: the commits, or where they are equal, sources."""
    if began[COMMIT] != now[COMMIT]:
        return f"commit {began[COMMIT]}, now {now[COMMIT]}"
    return f"files differ in commit {now[COMMIT]}: {sources(began)}, now {sources(now)}"


def passed_over(name: str, error: MisError) -> str:
    """Return what is said of a study that cannot go on, where another one, or a new one, is taken."""
    return f"study {name} is passed over: {error}"


def goes_on(ended: int, begun: int, total: int) -> str:
    """Return how far a study is that goes on.

    Args:
        ended: How many of its trials have ended.
        begun: How many were begun.
        total: How many trials it is to have; it may have more already, where that was a larger number before.
    """
    if begun > total:
        return f"{ended} of {begun} trials have ended, and no further one begins: tune.num_samples is {total} by now"
    return f"it goes on: {ended} of {total} trials have ended, {begun} were begun"


def failed(number: int, name: str) -> str:
    """Return what is said at the end of a study of which trials have failed."""
    return f"{number} failed; python -m mis.tune --resume {name} --retry-failed tries them again"


def awaits_stage(name: str) -> str:
    """Return what is said at the end of a study that was begun by the pipeline and finished by hand."""
    return (
        f"the pipeline began study {name}: `dvc repro` takes its results where params.yaml has the same values, and "
        "its checkpoints stay until then"
    )


def tried_again(numbers: Sequence[int]) -> str:
    """Return what is said of failed trials that are tried again."""
    return f"tried again from their last checkpoints: trials {', '.join(map(trial_name, numbers))}"


def runs_already(name: str, runner: str) -> MisError:
    """Return the error for a study that another process runs.

    Args:
        name: The study's name.
        runner: The process and its host; empty where they are not known.
    """
    other = runner or "another process"
    return MisError("a study must run once at a time", got=f"{name}, which {other} runs", do="wait for that, or end it")


def bad_name(name: str) -> MisError:
    """Return the error for a name that cannot be a study's."""
    rule = "a study's name must begin with a letter or digit, and have letters, digits, '.', '-' and '_' alone"
    return MisError(rule, got=repr(name))


class NameTakenError(MisError):
    """There is a study of this name already."""


def name_taken(name: str, *, has_folder: bool) -> MisError:
    """Return the error for a name that another study has, or had before its folder was deleted."""
    if has_folder:
        return NameTakenError("a new study must have a new name", got=name, do=f"go on with it: --resume {name}")
    return MisError("a new study must have a new name", got=f"{name}, of which MLflow has runs", do="choose another")


def needs_server(what: str) -> MisError:
    """Return the error for what must be read from MLflow, where a command runs without its server.

    Args:
        what: The parameter, or the option, that says so.
    """
    return MisError(f"{what} must be read from MLflow, which MIS_OFFLINE=1 does without", do="unset one of the two")
