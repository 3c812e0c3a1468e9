"""`python -m mis.tune`: a search, with its progress on the terminal and its trials in MLflow."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mis import cli
from mis.errors import MisError
from mis.params.load import Params
from mis.settings import Settings
from mis.track.recording import delivered_id, where

WHOLE_FROM = 1000.0
"""From here on the table has no digits after the point."""

STORAGE = "storage."
"""How the names of the parameters begin that say where things are kept."""

if TYPE_CHECKING:
    from mis.tune.result import StudyResult


def show(study: "StudyResult", settings: Settings) -> None:
    """Say what came out and where it is."""
    import pandas as pd

    table = pd.DataFrame([trial.row() for trial in study.trials]).dropna(axis=1, how="all")
    print(table.to_string(index=False, float_format=_short))
    values = ", ".join(f"{name}={value}" for name, value in study.best.values.items())
    print(f"best: trial {study.best.name} with validation Dice {study.best.score:.4f}: {values}")
    if front := study.store.journal.pareto_front():
        print(f"no other is better in both objectives: {', '.join(front)}")
    print(f"study {study.name}, its curves and its model: {where(delivered_id(study.run), settings)}")


def _short(value: float) -> str:
    """Return a number of the table; weights of a network and long times are whole numbers there.

    >>> [_short(value) for value in (90720.0, 2.0, 12345.67, 0.000123456, float("nan"))]
    ['90720', '2', '12346', '0.0001235', 'nan']
    """
    return f"{value:.0f}" if value.is_integer() or abs(value) >= WHOLE_FROM else f"{value:.4g}"


def read(arguments: argparse.Namespace) -> tuple[str | None, list[str], Params | None, Settings]:
    """Return the study that goes on and its new budget, and the parameters of a new one, and the settings.

    Args:
        arguments: What `parser` has read.

    Raises:
        MisError: Options do not go together, or the parameters are none.
    """
    name, overrides = arguments.resume, list(arguments.overrides)
    if arguments.retry_failed and name is None:
        raise MisError("--retry-failed is for a study that goes on: give it with --resume NAME")
    if arguments.or_resume and (arguments.name is None or arguments.dry_run):
        raise MisError("--or-resume is for a study with a name that is to run: give it with --name NAME")
    if name is None:
        return None, overrides, *cli.load(arguments.params, overrides)
    if arguments.params or arguments.dry_run or arguments.name:
        raise MisError("a study goes on with its own parameters: --resume takes neither --params, --name nor --dry-run")
    # Its own parameters, but for where it is kept.
    _, settings = cli.load(overrides=[text for text in overrides if text.startswith(STORAGE)])
    return name, [text for text in overrides if not text.startswith(STORAGE)], None, settings


def _budget_of(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that a study takes which goes on."""
    from mis.tune.study.store import BUDGET

    return [text for text in overrides if text.partition("=")[0].strip() in BUDGET]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = cli.params_parser("Search over the parameters that params.yaml lists under tune.space.")
    made.add_argument(
        "--resume",
        metavar="NAME",
        help="go on with a study that was interrupted, was killed or has ended; --set may give it another budget",
    )
    made.add_argument(
        "--retry-failed", action="store_true", help="with --resume: try the trials again that have failed"
    )
    made.add_argument("--name", metavar="NAME", help="the name of a new study; by default the time")
    made.add_argument(
        "--or-resume", action="store_true", help="with --name: go on with the study of this name where there is one"
    )
    made.add_argument("--dry-run", action="store_true", help="print what would be done, and how long it would take")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parser().parse_args(argv)

    def command() -> None:
        name, overrides, params, settings = read(arguments)

        from mis.data.records.prepare import find_records  # late, as what follows: it needs NumPy
        from mis.report.study.figures import write_figures
        from mis.tune.preview import preview
        from mis.tune.resume import resume
        from mis.tune.session import check_name, is_there, tune
        from mis.tune.study import messages

        if arguments.or_resume and is_there(arguments.name, settings):
            name, overrides = arguments.name, _budget_of(overrides)
        elif arguments.name is not None:
            check_name(arguments.name, settings)
        if arguments.dry_run and params is not None:
            print(preview(params, settings))
            return
        if name is None and params is not None:
            settings = replace(settings, records_folder=find_records(params.data, settings))
            try:
                study = tune(params, settings, draw=write_figures, name=arguments.name)
            except messages.NameTakenError:  # by another process, since
                if not arguments.or_resume:
                    raise
                study = resume(arguments.name, settings, _budget_of(overrides), draw=write_figures)
        elif name is not None:
            study = resume(name, settings, overrides, draw=write_figures, retry_failed=arguments.retry_failed)
        show(study, settings)
        if study.store.awaits_stage:
            print(messages.awaits_stage(study.name))
        else:
            study.finish()

    return cli.exit_code(command)


if __name__ == "__main__":
    raise SystemExit(main())
