"""`python -m mis.evaluate`: how good is a model? Do two differ on the same cases? Which one is the champion?"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mis import cli
from mis.cli import add_overrides, exit_code
from mis.predict.source import add_model_options, find_models
from mis.quiet import import_tensorflow
from mis.settings import load_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser("python -m mis.evaluate", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = "compare two runs of `evaluate` case by case: Wilcoxon's signed-rank test, the effect and its interval"
    compare = commands.add_parser("compare", help=text, description=text, allow_abbrev=False)
    compare.add_argument(
        "first", metavar="RUN_A", help="MLflow's id of a run of `score` or of the stage evaluate, which print it"
    )
    compare.add_argument("second", metavar="RUN_B", help="another one, whose scores are the later ones")
    compare.add_argument("--json", action="store_true", help="print JSON, for a program to read")
    compare.set_defaults(command=_compare)
    text = "score a model, or several together, on the test cases, and log a run that `compare` takes"
    scored = commands.add_parser("score", help=text, description=text, allow_abbrev=False)
    add_model_options(scored)
    scored.add_argument("--params", type=Path, metavar="FILE", help="instead of the project's params.yaml")
    add_overrides(scored)
    scored.set_defaults(command=_score)
    text = "make a version of the registered model mis the champion, whatever its scores"
    promote = commands.add_parser("promote", help=text, description=text, allow_abbrev=False)
    promote.add_argument("version", metavar="VERSION", help="its number in MLflow's registry")
    promote.set_defaults(command=_promote)
    arguments = parser.parse_args(argv)
    return exit_code(partial(arguments.command, arguments))


def _promote(arguments: argparse.Namespace) -> None:
    from mis.evaluate.champion import promote
    from mis.track.mlflow import MlflowTracker

    promote(MlflowTracker(load_settings()), arguments.version)
    print(f"version {arguments.version} is mis@champion")


def _score(arguments: argparse.Namespace) -> None:
    params, settings = cli.load(arguments.params, arguments.overrides)
    import_tensorflow()
    from mis.data.records.prepare import find_records
    from mis.evaluate.session import open_store, score
    from mis.track.mlflow import existing_store

    settings = replace(settings, records_folder=find_records(params.data, settings))
    name = " + ".join(arguments.model) + (f", its best {arguments.best}" if arguments.best else "")
    with TemporaryDirectory() as fetched:
        models = find_models(arguments.model, arguments.best, Path(fetched), partial(existing_store, settings))
        tracker = open_store(settings)
        scores, run_id = score(models, name, params, settings, tracker)
    summary = scores.summary()
    for measure in ("dice", "lesion_dice", "hd95_mm"):
        names = {region: f"{measure}_{region.lower()}" for region in scores.cases[0].regions}
        known = (f"{region} {summary[name]:.4f}" for region, name in names.items() if name in summary)
        print(f"{measure:12} " + "  ".join(known))
    where = "" if tracker is None else f"; their scores and sheets: run {run_id} in {tracker.location()}"
    print(f"{summary['cases']} test cases{where}")


def _compare(arguments: argparse.Namespace) -> None:
    import_tensorflow()  # which says nothing then
    from mis.evaluate.compare import FEWEST_CASES, compare_runs
    from mis.track.mlflow import MlflowTracker

    lines = compare_runs(MlflowTracker(load_settings()), arguments.first, arguments.second)
    if arguments.json:
        print(json.dumps(_without_nan([asdict(line) for line in lines]), indent=2))
        return
    cases = max(line.test.cases for line in lines)
    print(f"{cases} cases; the difference is {arguments.second} minus {arguments.first}")
    print(
        f"{'score':22} {'A':>9} {'B':>9} {'difference':>11} {'95 % interval':>20} {'better':>7} {'worse':>6} {'p':>8}"
    )
    for line in lines:
        effect = line.test.effect
        interval = "" if isnan(effect.low) else f"{effect.low:+.4f} to {effect.high:+.4f}"
        print(
            f"{line.score:22} {line.first:9.4f} {line.second:9.4f} {effect.mean:+11.4f} {interval:>20} "
            f"{line.test.better:7} {line.test.worse:6} {line.test.p:8.2g}"
        )
    if cases < FEWEST_CASES:
        print(f"with fewer than {FEWEST_CASES} cases the test finds no difference at the level of .05, whatever it is")


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """Return JSON values with null in place of what is not a number, which JSON has not."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and isnan(value) else value


if __name__ == "__main__":
    raise SystemExit(main())
