"""What a job would refuse after hours in the queue is refused before it is submitted."""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mis import cli
from mis.errors import MisError
from mis.params.load import Params
from mis.params.tune import STUDY_NAME
from mis.settings import Settings
from mis.slurm.allocation import Job
from mis.slurm.job import OWN, TASK, with_task, words_of
from mis.tune.study import messages

ReadSearch = Callable[[argparse.Namespace], tuple[str | None, list[str], Params | None, Settings]]
"""Returns the study that goes on, its new budget, the parameters of a new one, and the settings."""


@dataclass(frozen=True)
class Checked:
    """What the command of a job would read.

    Attributes:
        settings: The settings of the command.
        study: The study of a search, with `TASK` for the number of an array's element, and `JOB` for that of the job;
            "" where there is none.
        takes_all_devices: Whether a training is to take all devices of the job.
        notes: Lines for the user: what may be, and will be an error where it stays so.
    """

    settings: Settings
    study: str
    takes_all_devices: bool
    notes: tuple[str, ...]


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
    if parser is None:
        _, settings = cli.load()
        return Checked(settings, "", takes_all_devices=False, notes=())
    task = first_task(options)
    _check_elements(options, task)
    job = Job("JOB", "JOB" if task is None else "JOB-TASK", task, 0, (), "")
    arguments = parser.parse_args(words_of(options.command, options.words, job, [])[2:])
    if options.command == "tune":
        params, settings = _check_search(arguments, read_search)
    elif options.command == "train" or arguments.command == "measure":
        params, settings = cli.load(arguments.params, arguments.overrides)
    else:
        params, settings = None, cli.load()[1]
    takes_all_devices = options.command == "train" and params is not None and _takes_all_devices(params, options)
    study = ""
    if options.command == "tune":
        own, _ = OWN.parse_known_args(with_task(options.words, None if task is None else "TASK"))
        study = own.resume or own.name or f"slurm-{job.label}"
    return Checked(settings, study, takes_all_devices, _notes(params, settings))


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


def _check_elements(options: argparse.Namespace, task: str | None) -> None:
    """Refuse one study for all elements of an array."""
    own, _ = OWN.parse_known_args(options.words)
    for option, name in (("--name", own.name), ("--resume", own.resume)):
        if task is not None and options.command == "tune" and name is not None and TASK not in name:
            raise MisError(
                "each element of an array must have a study of its own",
                got=f"{option} {name} for all",
                do=f"{option} {name}-{TASK}",
            )


def _check_search(arguments: argparse.Namespace, read: ReadSearch) -> tuple[Params | None, Settings]:
    """Refuse what a search would refuse; return its parameters, None where it has those of its study, and settings."""
    name, overrides, params, settings = read(arguments)
    if name is not None:
        from mis.tune.resume import read_budget  # late: it needs all that trains
        from mis.tune.session import check_is_there

        check_is_there(name, settings)
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


def _notes(params: Params | None, settings: Settings) -> tuple[str, ...]:
    """Return what is to be said of records that are not there yet."""
    if params is None:
        return ()
    from mis.data.records.prepare import find_records  # late: it needs NumPy

    try:
        find_records(params.data, settings, make=False)
    except MisError as error:
        return (f"as it is now, the job would end with: {error}",)
    return ()
