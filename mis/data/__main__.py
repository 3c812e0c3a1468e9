"""`python -m mis.data`: check, make, link or import a data set, show a case, and say which data a run had."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mis.cli import add_overrides, ends_when_interrupted, exit_code
from mis.errors import MisError
from mis.params.data import LAYOUTS
from mis.params.load import load_params
from mis.settings import cores, load_settings

Command = Callable[[argparse.Namespace], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser("python -m mis.data", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        subparser.set_defaults(command=command)
        return subparser

    check = add("check", run_check, "read every case of a data set and say what is wrong; exit code 2 if anything is")
    check.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="the data set; data.root by default")
    check.add_argument("--out", type=Path, metavar="DIR", help="where the tables go; results/check by default")
    add_overrides(check)
    phantom = add("phantom", run_phantom, "make a synthetic data set, e.g. with --set phantom.cases=12")
    phantom.add_argument("folder", type=Path, metavar="DIR", help="where; only a phantom is replaced")
    phantom.add_argument("--layout", choices=LAYOUTS, help="phantom.layout by default")
    add_overrides(phantom)
    link = add("link", run_link, "use a data set where it lies: a link under data/raw, and data.root")
    link.add_argument("folder", type=Path, metavar="DIR", help="the data set's folder")
    archive = add("import", run_import, "download a tar file with DVC, unpack it under data/raw, and set data.root")
    archive.add_argument("url", metavar="URL", help="ends in .tar, .tar.gz or .tgz")
    which = add("which", run_which, "say which data, commit and parameters a run had; exit code 1 if they differ now")
    which.add_argument("run_id", metavar="RUN_ID", help="MLflow's id of the run")
    show = add(
        "show", run_show, "draw a case: three planes with the label's outlines, and its axial slices as an animation"
    )
    show.add_argument(
        "case", metavar="CASE", help="its id; or a path to its folder or to one of its files, of whatever data set"
    )
    show.add_argument(
        "--root", type=Path, metavar="DIR", help="the data set's folder; by default data.root, or that of the path"
    )
    show.add_argument(
        "--out", type=Path, metavar="DIR", help="the pictures' folder; by default results/show/<the data set's folder>"
    )
    show.add_argument("--no-gif", action="store_true", help="the planes alone")

    arguments = parser.parse_args(argv)
    return exit_code(partial(_run, arguments))


def _run(arguments: argparse.Namespace) -> int | None:
    try:
        result: int | None = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # what only the user can mend: no permission, a file where a folder should be, a full disk
        raise MisError(f"files must be accessible: {error.strerror}", got=error.filename) from None
    return result


def run_check(arguments: argparse.Namespace) -> int:
    """Check a data set; the exit code is 2 where it has errors, else 0."""
    from mis.data.check.data_set import check_data_set
    from mis.data.check.report import summary, write_not_understood, write_report
    from mis.data.layouts.recognise import read_data
    from mis.data.records.prepare import REFUSED

    settings = load_settings()
    if arguments.folder and not arguments.folder.is_dir():
        raise MisError("what is checked must be the folder of a data set", got=arguments.folder)
    params = load_params(settings.workspace / "params.yaml", arguments.overrides).data
    # The layout in params.yaml is that of the data set in params.yaml.
    is_other = arguments.folder and not any(text.startswith("data.layout=") for text in arguments.overrides)
    root, out = arguments.folder or settings.workspace / params.root, arguments.out or settings.workspace / REFUSED
    try:
        data = read_data(root, "auto" if is_other else params.layout)
    except MisError as error:
        write_not_understood(error, root, out)
        raise
    result = check_data_set(data, params, jobs=cores())
    page = write_report(result, data, params, out)
    print(*summary(result, data), f"tables: {page.parent} ({page.name}, findings.csv, cases.csv, check.json)", sep="\n")
    return 2 if result.errors else 0


def run_phantom(arguments: argparse.Namespace) -> None:
    """Make a synthetic data set."""
    from mis.data.phantom.write import make_phantom

    settings = load_settings()
    given = [f"phantom.layout={arguments.layout}"] if arguments.layout else []
    params = load_params(settings.workspace / "params.yaml", [*arguments.overrides, *given]).phantom
    make_phantom(arguments.folder, params, jobs=cores())
    print(f"{arguments.folder}: {params.cases + params.unlabelled} cases in the layout {params.layout}")


def run_link(arguments: argparse.Namespace) -> None:
    """Use a folder that lies on this machine."""
    from mis.data.versions.link import link

    # Committed first: the commit that a run records then has the data set's name.
    print(*link(arguments.folder, load_settings()), "next: git commit params.yaml, then dvc repro", sep="\n")


def run_import(arguments: argparse.Namespace) -> None:
    """Download an archive and use it."""
    from mis.data.versions.fetch import ImportPaths, import_archive

    settings = load_settings()
    with ends_when_interrupted(within_s=10):  # DVC waits for a server that has stalled
        done = import_archive(arguments.url, settings)
    pointer = ImportPaths.of(arguments.url, settings.workspace).pointer.relative_to(settings.workspace)
    print(*done, f"next: git add {pointer} params.yaml && git commit, then dvc repro", sep="\n")


def run_which(arguments: argparse.Namespace) -> int:
    """Compare a run with the data, the commit and the parameters here; the exit code is 1 where something differs."""
    from mis.data.versions.version import compare_origin, compare_params, find_run, report

    settings = load_settings()
    params = load_params(settings.workspace / "params.yaml")
    run = find_run(arguments.run_id, settings)
    origin, changed = compare_origin(run, params, settings), compare_params(run, params)
    print(report(origin, changed))
    return 0 if all(comparison.same for comparison in origin) and not changed else 1


def run_show(arguments: argparse.Namespace) -> None:
    """Draw a case and print the paths of the pictures."""
    from mis.data.pictures.show import find_root, show

    settings = load_settings()
    data = load_params(settings.workspace / "params.yaml").data
    default_root = settings.workspace / data.root
    root = arguments.root or find_root(arguments.case, default_root)
    if not root.is_dir() and root != default_root:
        raise MisError("--root must be the folder of a data set", got=root)
    if root != default_root:
        data = data.model_copy(update={"layout": "auto"})  # the layout in params.yaml is that of its data set
    out = arguments.out or settings.workspace / "results" / "show" / (root.name or root.resolve().name)
    print(*show(arguments.case, root, data, out, animated=not arguments.no_gif), sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
