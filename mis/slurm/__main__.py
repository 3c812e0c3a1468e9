"""`python -m mis.slurm --nodes 8 --gpus-per-node 4 --time 24:00:00 tune ...`: write, check, submit a batch script."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mis import cli
from mis.errors import MisError
from mis.files import new_file
from mis.params.tune import STUDY_NAME
from mis.settings import load_settings
from mis.slurm import submit
from mis.slurm.allocation import seconds_of
from mis.slurm.job import COMMANDS, OWN, TASK, with_task
from mis.slurm.script import SIGNAL_S, Script
from mis.track.store import location_of, tracking_uri
from mis.tune.study import messages

SHORT_S = 300
"""Seconds of a time limit below which a turn may end before it has done anything."""

PASSED_ON = ("partition", "account", "qos", "constraint", "mem", "array")
"""Options that are handed to sbatch as they are."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = argparse.ArgumentParser(
        "python -m mis.slurm",
        description="Write a batch script that runs a command on all nodes of a job, and check it.",
        allow_abbrev=False,
    )
    made.add_argument("--nodes", type=int, default=1)
    made.add_argument("--gpus-per-node", type=int, default=0)
    made.add_argument("--cpus-per-node", type=int, help="by default the cluster's own")
    made.add_argument("--time", help="the limit of each turn, e.g. 24:00:00; the job goes on in its next one")
    for name in PASSED_ON:
        made.add_argument(f"--{name}", help=f"sbatch's --{name}")
    made.add_argument("--module", action="append", default=[], help="load a module; may be repeated")
    made.add_argument("--setup", action="append", default=[], metavar="LINE", help="a line of shell before the command")
    made.add_argument("--venv", default=".venv", help="the virtual environment, on all nodes")
    made.add_argument("--container", default="", help="instead of --venv, e.g. 'apptainer exec --nv mis.sif'")
    made.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="any other option of sbatch")
    made.add_argument("--join-s", type=int, help="seconds in which Ray must have started on all nodes")
    made.add_argument("--output", type=Path, help="the script's file; by default mis-COMMAND.sbatch")
    made.add_argument("--submit", action="store_true", help="submit it")
    made.add_argument("command", choices=COMMANDS)
    made.add_argument("words", nargs=argparse.REMAINDER, help="the command's own options")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parser().parse_args(argv)
    return cli.exit_code(lambda: _run(options, argv))


def script_of(options: argparse.Namespace, argv: Sequence[str], *, takes_all_devices: bool) -> Script:
    """Return the script that the options of the command ask for."""
    # sbatch takes the words of its lines apart as a shell does.
    passed_on = [f"--{name}={shlex.quote(v)}" for name in PASSED_ON if (v := getattr(options, name)) is not None]
    return Script(
        options.command,
        options.words,
        nodes=options.nodes,
        gpus_per_node=options.gpus_per_node,
        time=options.time,
        cpus_per_node=options.cpus_per_node,
        options=[*passed_on, *options.sbatch],
        modules=options.module,
        setup=options.setup,
        venv=options.venv,
        container=options.container,
        join_s=options.join_s,
        takes_all_devices=takes_all_devices,
        written_by=shlex.join(["python", "-m", "mis.slurm", *argv]),
    )


def _run(options: argparse.Namespace, argv: Sequence[str]) -> None:
    takes_all_devices = False
    if options.command != "repro":
        takes_all_devices = _check(options)
    if options.submit and not submit.is_there():
        raise MisError("sbatch must be found on PATH to submit a job", do="run this on a login node of the cluster")
    text = script_of(options, argv, takes_all_devices=takes_all_devices).text()
    _check_environment(options)
    path = options.output or Path(f"mis-{options.command}.sbatch")
    answer = submit.check(text, path) if submit.is_there() else None
    _write(text, path)
    limit_s = _limit_s(options.time)
    if limit_s is not None and limit_s < SHORT_S:
        print(
            f"note: a job is told {SIGNAL_S} s before its limit, and takes a minute or two to begin: with a --time of "
            f"less than {SHORT_S // 60} minutes a turn may end before it has done anything"
        )
    if answer is None:
        print("not checked: there is no sbatch on this machine; on the cluster: sbatch --test-only", path)
        return
    print(f"checked: {answer}")
    if not options.submit:
        print(f"submit it: sbatch {path}")
        return
    _tell(submit.submit(path), options)


def _check_environment(options: argparse.Namespace) -> None:
    """Refuse a virtual environment that the job would not find, and say of one that may be on the nodes alone."""
    activate = Path(options.venv) / "bin" / "activate"
    if options.container or activate.is_file():
        return
    if not (activate.is_absolute() or options.setup):
        raise MisError(
            "--venv must name a virtual environment, which has bin/activate",
            got=f"{options.venv} in {Path.cwd()}",
            do="`make install` makes .venv; --venv names another one, --container an image",
        )
    print(f"note: there is no {activate} here; the job ends where its nodes do not have it")


def _write(text: str, path: Path) -> None:
    """Write the script, and keep one that was there: a person may have changed it."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
        former = path.with_name(f"{path.name}~")
        path.replace(former)
        print(f"kept: the script that was there is {former} now")
    with new_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"written: {path}")


def _limit_s(text: str | None) -> int | None:
    """Return the seconds of a time limit as sbatch reads it: a number alone is minutes; None where there is none."""
    if text is None:
        return None
    return 60 * int(text) if text.isdecimal() else seconds_of(text)


def _check(options: argparse.Namespace) -> bool:
    """Refuse parameters that the job would refuse; return whether a training is to take all devices of the job."""
    own, _ = OWN.parse_known_args(with_task(options.words, _first_task(options)))
    params, settings = cli.load(own.params, own.overrides)
    if options.command == "tune" and own.name is not None:
        _check_name(own.name, options)
    if options.command == "tune" and own.resume is not None:
        from mis.tune.session import check_is_there  # late: it needs all that trains

        check_is_there(own.resume, settings)
    if options.command != "train" or params.distribute.devices > 1:
        return False
    devices = options.nodes * max(1, options.gpus_per_node)
    params.check_spread("the job's devices, which a training takes all where distribute.workers is 1", devices)
    return bool(devices > 1)


def _check_name(name: str, options: argparse.Namespace) -> None:
    """Refuse a name that no study can have, or one for all elements of an array.

    Args:
        name: The name; with an array, that of its first element.
        options: The options of the command.
    """
    if not STUDY_NAME.fullmatch(name):
        raise messages.bad_name(name)
    given, _ = OWN.parse_known_args(options.words)
    if _first_task(options) is not None and TASK not in given.name:
        raise MisError(
            "each element of an array must have a study of its own",
            got=f"--name {name} for all",
            do=f"--name {name}-{TASK}",
        )


def _first_task(options: argparse.Namespace) -> str | None:
    """Return the number of an element of the array that the job is to be; None where it is to be none."""
    words = [f"--array={options.array or ''}", *options.sbatch]
    found = [match[1] for word in words if (match := re.match(r"(?:--array[= ]|-a[= ]?)(\d+)", word))]
    return found[-1] if found else None


def _tell(number: str, options: argparse.Namespace) -> None:
    """Say where to look."""
    first = _first_task(options)
    own, _ = OWN.parse_known_args(with_task(options.words, first))
    _, settings = cli.load(own.params, own.overrides)
    own, _ = OWN.parse_known_args(with_task(options.words, None if first is None else "TASK"))
    task = "" if first is None else "-TASK"
    print(f"submitted: job {number}")
    print(f"  its state    squeue --job {number}")
    print(f"  its output   slurm-mis-{options.command}-{number}{task.replace('-', '_')}.out")
    print(f"  the nodes    {load_settings().checkpoints / 'slurm' / f'{number}{task}-0'}")
    if options.command == "tune":
        name = own.resume or own.name or f"slurm-{number}{task}"
        folder = f"{settings.storage}/checkpoints" if settings.is_remote else settings.checkpoints
        by_hand = messages.way_on(name, settings.storage if settings.is_remote else None)
        print(f"  the study    {folder}/tune/{name}; by hand: {by_hand}")
    print(f"  the figures  {location_of(tracking_uri(settings))}")


if __name__ == "__main__":
    raise SystemExit(main())
