"""`python -m mis.slurm --nodes 8 --gpus-per-node 4 --time 24:00:00 tune ...`: write, check, submit a batch script."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from itertools import count
from pathlib import Path

import mis.scaling.__main__
import mis.train.__main__
import mis.tune.__main__
from mis import cli
from mis.errors import MisError
from mis.files import copy_file, new_file
from mis.settings import load_settings
from mis.slurm import submit
from mis.slurm.check import Checked, check, check_environment, first_task
from mis.slurm.job import COMMANDS
from mis.slurm.script import SIGNAL_S, Script
from mis.track.store import location_of, tracking_uri
from mis.words import counted

SHORT_S = 300
"""Seconds of a time limit below which a turn may end before it has done anything."""

PARSERS = {
    "tune": mis.tune.__main__.parser,
    "train": mis.train.__main__.parser,
    "scaling": mis.scaling.__main__.parser,
}
"""What reads the options of each command of `mis`."""

CHECKED = "checked:"

WRITTEN_BY = "# Written by: python -m mis.slurm "
"""How the line of a script begins that has the words of this command."""

PASSED_ON = ("partition", "account", "qos", "constraint", "mem", "array")
"""Options that are handed to sbatch as they are."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = argparse.ArgumentParser(
        "python -m mis.slurm",
        description="Write a batch script that runs a command on all nodes of a job, and check it.",
        allow_abbrev=False,
    )
    made.add_argument("--nodes", type=int, default=1, help="how many; by default 1")
    made.add_argument("--gpus-per-node", default="0", metavar="[TYPE:]N", help="e.g. 4, or a100:4; by default none")
    made.add_argument("--cpus-per-node", type=int, help="by default the cluster's own")
    made.add_argument("--time", help="the limit of each turn, e.g. 24:00:00; the job goes on in its next one")
    for name in PASSED_ON:
        made.add_argument(f"--{name}", help=f"sbatch's --{name}")
    made.add_argument("--module", action="append", default=[], help="load a module; may be repeated")
    made.add_argument("--setup", action="append", default=[], metavar="LINE", help="a line of shell before the command")
    made.add_argument("--venv", default=".venv", help="the virtual environment, on all nodes")
    made.add_argument("--container", default="", help="instead of --venv, e.g. 'apptainer exec --nv mis.sif'")
    made.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="any other, as --sbatch=--exclude=n2"
    )
    made.add_argument("--join-s", type=int, help="seconds in which Ray must have started on all nodes")
    made.add_argument("--requeues", type=int, help="how often the job may be queued again")
    made.add_argument("--output", type=Path, help="the script's file; by default mis-COMMAND.sbatch")
    made.add_argument("--submit", action="store_true", help="submit it")
    made.add_argument("command", help=f"{', '.join(COMMANDS)}; the options of mis.slurm stand before it")
    made.add_argument("words", nargs=argparse.REMAINDER, help="the command's own options")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return cli.exit_code(lambda: _run(read(argv), argv))


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command, and the type of the GPUs as `gpu_type`.

    Raises:
        MisError: There is no such command, or the GPUs are none that SLURM knows.
        SystemExit: There is no such option.
    """
    options = parser().parse_args(argv)
    if options.command not in COMMANDS:
        raise MisError(
            f"the command of the job must be one of {', '.join(COMMANDS)}",
            got=options.command,
            do="before it stand the options of mis.slurm, see --help, and after it its own, as --set",
        )
    gpus = re.fullmatch(r"(?:([\w.-]+):)?(\d+)", options.gpus_per_node)
    if gpus is None:
        raise MisError("--gpus-per-node must be a number, or TYPE:NUMBER", got=options.gpus_per_node)
    options.gpu_type, options.gpus_per_node = gpus[1] or "", int(gpus[2])
    return options


def script_of(options: argparse.Namespace, argv: Sequence[str], *, takes_all_devices: bool) -> Script:
    """Return the script that the options of the command ask for."""
    # sbatch takes the words of its lines apart as a shell does.
    passed_on = [f"--{name}={shlex.quote(v)}" for name in PASSED_ON if (v := getattr(options, name)) is not None]
    return Script(
        options.command,
        options.words,
        nodes=options.nodes,
        gpus_per_node=options.gpus_per_node,
        gpu_type=options.gpu_type,
        time=options.time,
        cpus_per_node=options.cpus_per_node,
        options=[*passed_on, *options.sbatch],
        modules=options.module,
        setup=options.setup,
        venv=options.venv,
        container=options.container,
        join_s=options.join_s,
        requeues=options.requeues,
        takes_all_devices=takes_all_devices,
        written_by=shlex.join(["python", "-m", "mis.slurm", *argv]),
    )


def _run(options: argparse.Namespace, argv: Sequence[str]) -> None:
    parser_of_command = PARSERS[options.command]() if options.command in PARSERS else None
    if parser_of_command is not None:
        parser_of_command.prog = f"python -m mis.{options.command}"
    checked = check(options, parser_of_command, mis.tune.__main__.read)
    if options.submit and not submit.is_there():
        raise MisError("sbatch must be found on PATH to submit a job", do="run this on a login node of the cluster")
    script = script_of(options, argv, takes_all_devices=checked.takes_all_devices)
    notes = [*checked.notes, check_environment(options), _note_on_time(options.time)]
    if checked.missing:
        notes.append(f"as it is now, the job would end with: {checked.missing}")
        if options.submit and not any(word.startswith(("--dependency", "-d")) for word in options.sbatch):
            later = "; to submit it all the same, after the job that makes them: --sbatch=--dependency=afterok:JOB"
            raise MisError(f"{checked.missing}{later}")
    path, text = options.output or Path(f"mis-{options.command}.sbatch"), script.text()
    if path.is_dir():
        raise MisError("--output must name a file", got=f"{path}, which is a folder")
    _check_shell(text)
    is_changed = _is_changed(path, text)
    if options.submit and is_changed:
        raise MisError(
            f"{path} was changed by hand, and would not be what is submitted",
            do=f"`sbatch {path}` submits it, and --output FILE makes another one",
        )
    answer = _asked(text, path, options)
    _write(text, path, is_changed=is_changed)
    gpus = counted(options.gpus_per_node, "GPU") if options.gpus_per_node else "no GPU"
    print(f"it asks for {counted(options.nodes, 'node')} with {gpus} each")
    for note in filter(None, notes):
        print(f"note: {note}")
    print(answer)
    if options.submit:
        _tell(submit.submit(text, path), path, checked, options)
    elif answer.startswith(CHECKED):
        print(f"submit it: sbatch {path}")


def _asked(text: str, path: Path, options: argparse.Namespace) -> str:
    """Return what SLURM says of the script, where it can be asked."""
    if not submit.is_there():
        return f"not checked: there is no sbatch on this machine; on the cluster: sbatch --test-only {path}"
    try:
        return f"{CHECKED} {submit.check(text, path)}"
    except submit.ControllerAwayError as error:
        if options.submit:
            raise
        return f"not checked: {error}"


def _check_shell(text: str) -> None:
    """Refuse a script that is none, as after an open quotation mark in --setup."""
    done = subprocess.run(["/bin/bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MisError("the script must be one that bash reads: see --setup", got=done.stderr.strip().splitlines()[0])


def _note_on_time(text: str | None) -> str:
    """Return what is to be said of a time limit, as sbatch reads it: a number alone is minutes, 0 is none."""
    if text is None:
        return ""
    days, _, rest = text.rpartition("-")
    # After days hours come first; else one number is minutes, and two are minutes and seconds.
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, seconds = [*parts, 0, 0][:3] if days or len(parts) == 3 else [0, *parts, 0][:3]
    limit_s = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if limit_s == 0 or limit_s >= SHORT_S:
        return ""
    return (
        f"a job is told {SIGNAL_S} s before its limit, and takes a minute or two to begin: with a --time of "
        f"less than {SHORT_S // 60} minutes a turn may end before it has done anything"
    )


def _is_changed(path: Path, text: str) -> bool:
    """Return whether a script is there that a person has changed."""
    return path.is_file() and not _is_as_written(path.read_text(encoding="utf-8", errors="replace"), text)


def _write(text: str, path: Path, *, is_changed: bool) -> None:
    """Write the script; one that was there and that a person has changed is renamed before."""
    if is_changed:
        numbers = (number for number in count(1) if not path.with_name(f"{path.name}.~{number}~").exists())
        kept = path.with_name(f"{path.name}.~{next(numbers)}~")
        copy_file(path, kept)
        print(f"kept: the script that was there, with what you have changed, is {kept} now")
    with new_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"written: {path}")


def _is_as_written(former: str, text: str) -> bool:
    """Return whether a script is what this command has written, or would write now: nobody has changed it."""
    words = [line.removeprefix(WRITTEN_BY) for line in former.splitlines() if line.startswith(WRITTEN_BY)]
    if former == text or not words:
        return former == text
    try:
        argv = shlex.split(words[0])
        with redirect_stderr(StringIO()):
            options = read(argv)
        return any(script_of(options, argv, takes_all_devices=value).text() == former for value in (False, True))
    except (MisError, SystemExit, ValueError):
        return False


def _tell(number: str, path: Path, checked: Checked, options: argparse.Namespace) -> None:
    """Say where to look."""
    task = "" if first_task(options) is None else "-%a"
    output = submit.output_of(number) or f"slurm-mis-{options.command}-{number}{task.replace('-', '_')}.out"
    print(f"submitted: job {number}")
    print(f"  its state    squeue --job {number}")
    print(f"  its output   {output}")
    print(f"  the nodes    {load_settings().checkpoints / 'slurm' / f'{number}{task}-0'}")
    settings = checked.settings
    if checked.study:
        name = checked.study.replace("slurm-JOB", f"slurm-{number}")
        folder = f"{settings.storage}/checkpoints" if settings.is_remote else settings.checkpoints
        is_named = "" if name == checked.study else f" --name {name}"
        print(f"  the study    {folder}/tune/{name}; to go on after scancel: sbatch {path}{is_named}")
    print(f"  the figures  {location_of(tracking_uri(settings))}")


if __name__ == "__main__":
    raise SystemExit(main())
