"""What a job would refuse after hours in the queue is refused before it is submitted."""

import argparse
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mis import cli
from mis.errors import MisError, WorkerError
from mis.params.load import Params
from mis.params.tune import STUDY_NAME
from mis.settings import Settings
from mis.slurm.allocation import Job
from mis.slurm.job import OWN, TASK, words_of
from mis.tune.study import messages
from mis.tune.study.layout import STUDY_JSON

OF_A_JOB = "slurm-JOB"
"""How the name of a study begins that has its name from a job that is still to be submitted."""

WAIT_S = 10.0
"""Seconds for which a storage that does not answer is asked again before a job is submitted."""

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Variables of which one says who asks a server of S3's kind."""

ReadSearch = Callable[[argparse.Namespace], tuple[str | None, list[str], Params | None, Settings]]
"""Returns the study that goes on, its new budget, the parameters of a new one, and the settings."""


@dataclass(frozen=True)
class Checked:
    """What the command of a job would read.

    Attributes:
        settings: The settings of the command.
        study: The study of a search, with `%a` for the number of an array's element, and `JOB` for that of the job;
            "" where there is none.
        takes_all_devices: Whether a training is to take all devices of the job.
        missing: What the command would be refused for as it is now, as records that are still to be made; or "".
        notes: Lines for the user.
    """

    settings: Settings
    study: str
    takes_all_devices: bool
    missing: str = ""
    notes: tuple[str, ...] = ()


def check(options: argparse.Namespace, parser: argparse.ArgumentParser | None, read_search: ReadSearch) -> Checked:
    """Read what the command of a job would read.

    Args:
        options: The options of `python -m mis.slurm`.
        parser: The command's own; None for one that is not of `mis`.
        read_search: Reads the arguments of a search.

    Raises:
        MisError: The command would be refused; or the job is an array whose elements would have a study in common.
        SystemExit: The command has no such option.
    """
    task = first_task(options)
    own, _ = OWN.parse_known_args(options.words)
    _check_elements(options, own, task)
    if parser is None:
        _, settings = cli.load()
        return Checked(settings, "", takes_all_devices=False)
    if "--submit" in options.words:
        raise MisError("--submit must stand before the command", got=f"{options.command} --submit")
    job = Job("JOB", "JOB" if task is None else "JOB-TASK", task, 0, (), "")
    arguments = parser.parse_args(words_of(options.command, options.words, job, [])[2:])
    goes_on = False
    if options.command == "tune":
        params, settings = _check_search(arguments, read_search)
        goes_on = arguments.name is not None and _may_be_there(arguments.name, settings)
    elif options.command == "train" or arguments.command == "measure":
        params, settings = cli.load(arguments.params, arguments.overrides)
    else:
        params, settings = None, cli.load()[1]
    if params is not None and not goes_on:
        _check_devices(params, options)
    takes_all_devices = options.command == "train" and params is not None and _takes_all_devices(params, options)
    study, notes = "", tuple[str, ...]()
    if options.command == "tune":
        study = own.resume or own.name or ("slurm-JOB" if task is None else f"slurm-JOB-{TASK}")
        notes = tuple(_notes_on_search(options, arguments.name if goes_on else None, params, settings))
    missing = "" if goes_on else _missing(params, settings)
    return Checked(settings, study, takes_all_devices, missing, notes)


def first_task(options: argparse.Namespace) -> str | None:
    """Return the number of an element of the array that the job is to be; None where it is to be none."""
    words = [f"--array={options.array or ''}", *options.sbatch]
    found = [match[1] for word in words if (match := re.match(r"(?:--array[= ]|-a[= ]?)(\d+)", word))]
    return found[-1] if found else None


def check_environment(options: argparse.Namespace) -> str:
    """Refuse a virtual environment that the job would not find; return what is to be said of one that it may find.

    Raises:
        MisError: There is no such environment.
    """
    activate = Path(options.venv) / "bin" / "activate"
    if options.container or activate.is_file():
        return ""
    if not (activate.is_absolute() or options.setup):
        raise MisError(
            "--venv must name a virtual environment, which has bin/activate",
            got=f"{options.venv} in {Path.cwd()}",
            do="`make install` makes .venv; --venv names another one, --container an image",
        )
    return f"there is no {activate} here; the job ends where its nodes do not have it"


def _check_elements(options: argparse.Namespace, own: argparse.Namespace, task: str | None) -> None:
    """Refuse an array whose elements would have a study in common, or do the same and meet; `own`: the command's."""
    if task is not None and options.command == "repro":
        raise MisError("a pipeline must run once at a time", got="an array of them", do="leave --array out")
    if task is not None and options.command == "train" and not _differ(options):
        raise MisError(
            "each element of an array must train something else",
            got="the same for all",
            do=f"put {TASK}, the number of the element, into an option, as --set train.seed={TASK}",
        )
    for option, name in (("--name", own.name), ("--resume", own.resume)):
        if task is not None and options.command == "tune" and name is not None and TASK not in name:
            raise MisError(
                "each element of an array must have a study of its own",
                got=f"{option} {name} for all",
                do=f"{option} {name}-{TASK}",
            )


def _differ(options: argparse.Namespace) -> bool:
    """Return whether the number of an array's element is in the options of the command."""
    return any(TASK in word for word in options.words)


def _check_devices(params: Params, options: argparse.Namespace) -> None:
    """Refuse what needs more GPUs than the job asks for; of other devices nothing is known here."""
    names = {"tune": "tune.devices_per_trial", "train": "distribute.workers x distribute.devices_per_worker"}
    wanted = {"tune": params.tune.devices, "train": params.distribute.devices}.get(options.command, 1)
    there = options.nodes * options.gpus_per_node
    if options.gpus_per_node and wanted > there:
        raise MisError(f"{names[options.command]} must be at most the {there} GPUs of the job", got=wanted)


def _may_be_there(name: str, settings: Settings) -> bool:
    """Return whether there is a study of a name, or may be one on a storage that does not answer here."""
    if (settings.checkpoints / "tune" / name / STUDY_JSON).is_file():
        return True
    if not settings.is_remote or name.startswith(OF_A_JOB):  # its own name, which nobody has had before
        return False
    from mis.tune.session import is_there  # late: it needs all that trains

    try:
        return is_there(name, replace(settings, storage_wait_s=WAIT_S))
    except WorkerError:
        return True


def _notes_on_search(
    options: argparse.Namespace, goes_on: str | None, params: Params | None, settings: Settings
) -> Iterator[str]:
    """Yield what is to be said of a search that is not what it seems."""
    if first_task(options) is not None and params is not None and not _differ(options):
        yield (
            f"all elements of the array have the sampler's seed {params.tune.sampler.seed} and search alike: "
            f"--set tune.sampler.seed={TASK}"
        )
    if goes_on is not None:
        yield (
            f"where there is a study {goes_on}, as it seems, the job goes on with it and its own parameters; of --set "
            f"it takes another budget alone"
        )
    if settings.is_remote and not any(name in os.environ for name in CREDENTIALS):
        yield f"none of {', '.join(CREDENTIALS)} is set here, so the job may not be let in at {settings.storage}"


def _check_search(arguments: argparse.Namespace, read: ReadSearch) -> tuple[Params | None, Settings]:
    """Refuse what a search would refuse; return its parameters, None where it has those of its study, and settings."""
    name, overrides, params, settings = read(arguments)
    if name is not None:
        from mis.tune.resume import read_budget  # late: it needs all that trains
        from mis.tune.session import check_is_there

        check_is_there(name, replace(settings, storage_wait_s=WAIT_S))
        read_budget(overrides)
    elif arguments.name is not None and not STUDY_NAME.fullmatch(arguments.name):
        raise messages.bad_name(arguments.name)
    if params is not None:
        params.check_spread("tune.devices_per_trial", params.tune.devices)
    return params, settings


def _takes_all_devices(params: Params, options: argparse.Namespace) -> bool:
    """Return whether a training is to take all devices of the job, which it must be possible to divide among them."""
    if params.distribute.devices > 1:
        return False
    devices = int(options.nodes * max(1, options.gpus_per_node))
    params.check_spread("the job's devices, which a training takes all where distribute.workers is 1", devices)
    return devices > 1


def _missing(params: Params | None, settings: Settings) -> str:
    """Return why records cannot be read, as they are to be made yet; "" where they can, or are not needed here."""
    if params is None:
        return ""
    from mis.data.records.prepare import find_records  # late: it needs NumPy

    try:
        find_records(params.data, settings, make=False)
    except MisError as error:
        return str(error)
    return ""
