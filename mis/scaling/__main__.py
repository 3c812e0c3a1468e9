"""`python -m mis.scaling`: the modes compared, measured on the devices at hand or simulated, and which one to take."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mis import cli
from mis.errors import MisError
from mis.files import write_json
from mis.settings import Settings, load_settings
from mis.words import counted

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

    from mis.scaling.cost_sets import CostSet
    from mis.scaling.curves import SimulatedPoint
    from mis.scaling.workload import Workload

DEVICES = "1,2,4,...,1024"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = argparse.ArgumentParser(prog="python -m mis.scaling", description=__doc__, allow_abbrev=False)
    commands = made.add_subparsers(
        dest="command", metavar="measure|simulate|recommend", help="without a command: measure"
    )
    _add_measure(commands)
    _add_simulate(commands)
    _add_recommend(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(argv) if argv is not None else None
    arguments = parser().parse_args(given)
    if arguments.command is None:
        arguments = parser().parse_args(["measure"])
    return cli.exit_code(lambda: arguments.run(arguments))


def _add_measure(commands: "Commands") -> None:
    measure = commands.add_parser("measure", help="on the devices at hand, as params.yaml says under scaling")
    measure.add_argument("--params", type=Path, metavar="FILE", help="instead of the project's params.yaml")
    cli.add_overrides(measure)
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    measure.set_defaults(run=_measure)


def _measure(arguments: argparse.Namespace) -> None:
    from mis.report.scaling_figures import pictures
    from mis.scaling.session import compare, location

    params, settings = cli.load(arguments.params, arguments.overrides)
    comparison = compare(params, settings, pictures)
    rows = comparison.rows()
    print(f"\none device: {rows[0]['elapsed_s']:.1f} s for {counted(len(params.scaling.trials), 'trial')}\n")
    several = [row for row in rows if row["devices"] != 1]
    _print_table([{name: value for name, value in row.items() if value is not None} for row in several])
    print(f"\nspeed-up: medians of {counted(params.scaling.rounds, 'round')}; runs and pictures: {location(settings)}")
    if arguments.json:
        write_json(arguments.json, comparison.to_json())
        print(f"the same as data: {arguments.json}")


def _add_simulate(commands: "Commands") -> None:
    simulate = commands.add_parser("simulate", help="on any number of devices, by a cost model")
    simulate.add_argument("--devices", default=DEVICES, metavar="LIST", help="1,2,...,1024 goes on doubling")
    simulate.add_argument("--trials", type=int, help="by default 32, or as many as there are devices")
    simulate.add_argument(
        "--costs", type=Path, metavar="FILE", help="a cost set; by default the paper's cluster, with our records"
    )
    simulate.add_argument(
        "--own-runs", action="store_true", help="the costs and cases of your own runs in MLflow, as recommend has them"
    )
    simulate.add_argument("--devices-per-node", type=int, help="instead of what the cost set has")
    simulate.add_argument("--cases", type=int, default=338, help="training cases of an epoch")
    simulate.add_argument("--val-cases", type=int, default=73)
    simulate.add_argument("--batch-size", type=int, default=16, help="cases of a step over all devices")
    simulate.add_argument("--epochs", type=int, default=30)
    simulate.add_argument("--spread", type=float, default=0.3, help="of the logarithm of the trials' durations")
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument("--early-stopping", action="store_true", help="stop trials as ASHA does")
    simulate.add_argument("--paper", action="store_true", help="explain the paper's x12 and x14, and what is gained")
    simulate.add_argument("--published", action="store_true", help="the model against published tables")
    simulate.add_argument("--against", type=Path, metavar="FILE", help="the simulator against runs that were measured")
    simulate.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    simulate.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> None:
    from mis.scaling import tables

    figures: dict[str, Sequence[dict[str, object]]]
    if arguments.paper:
        figures = tables.paper_tables()
    elif arguments.published:
        figures = {"the model against published tables": tables.published_rows()}
    elif arguments.against:
        figures = {"the simulator against what was run": tables.against_rows(arguments.against)}
    else:
        costs, workload, said = _simulated(arguments)
        points = _points(arguments, costs, workload)
        for line in said:
            print(line)
        figures = {f"simulated speed-ups: {costs.name}": [point.row() for point in points]}
        _log(points, load_settings())
        print("speed-up against one device; each: the most devices that a trial has had; the curves are in MLflow too")
    for title, rows in figures.items():
        print(f"\n{title}")
        _print_table(rows)
    if arguments.json:
        write_json(arguments.json, figures)
        print(f"\nthe same as data: {arguments.json}")


def _simulated(arguments: argparse.Namespace) -> "tuple[CostSet, Workload, list[str]]":
    """Return the costs, what a trial does in an epoch, and what there is to say of them."""
    from dataclasses import replace

    from mis.scaling import paper
    from mis.scaling.cost_sets import read_cost_set
    from mis.scaling.workload import Workload

    for name in ("trials", "devices_per_node", "cases", "batch_size", "epochs"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise MisError(f"--{name.replace('_', '-')} must be at least 1", got=value)
    for name in ("val_cases", "spread"):
        if getattr(arguments, name) < 0:
            raise MisError(f"--{name.replace('_', '-')} must be at least 0", got=getattr(arguments, name))
    workload, said = Workload(arguments.cases, arguments.val_cases, arguments.batch_size), list[str]()
    if arguments.own_runs and arguments.costs:
        raise MisError("--own-runs and --costs are two sets of costs", do="give one of them")
    if arguments.own_runs:
        costs, workload, said = _own(arguments)
    elif arguments.costs:
        costs = read_cost_set(arguments.costs)
        costs = replace(costs, name=f"{costs.name} ({arguments.costs})")
    else:
        costs = paper.with_records_in_memory(paper.cluster())
        costs = replace(costs, name="the paper's cluster, with our records in the memory of each node")
    if arguments.devices_per_node:
        costs = replace(costs, devices_per_node=arguments.devices_per_node)
    return costs, workload, said


def _own(arguments: argparse.Namespace) -> "tuple[CostSet, Workload, list[str]]":
    """Return the costs that are fitted to this user's runs, and how well they fit."""
    from dataclasses import replace

    from mis.scaling.advise import fit_lines
    from mis.scaling.calibrate import fit_to_runs, own_records, workload_of
    from mis.scaling.curves import parse_devices
    from mis.track.mlflow import MlflowTracker

    params, settings = cli.load()
    records = own_records(params, settings)
    own_devices = arguments.devices_per_node or max(parse_devices(arguments.devices))
    fitted = fit_to_runs(params, records, MlflowTracker(settings), own_devices)
    # The devices of a step are limited by its batch: what is simulated may have a larger one than was measured.
    workload = replace(workload_of(params, records), batch_size=arguments.batch_size)
    return fitted.costs, workload, fit_lines(fitted)


def _points(arguments: argparse.Namespace, costs: "CostSet", workload: "Workload") -> "list[SimulatedPoint]":
    from mis.scaling.curves import parse_devices, simulate_modes
    from mis.scaling.early_stopping import EarlyStopping

    return simulate_modes(
        costs,
        workload,
        parse_devices(arguments.devices),
        trials=arguments.trials,
        epochs=arguments.epochs,
        spread=arguments.spread,
        seed=arguments.seed,
        stopping=EarlyStopping(3, 3) if arguments.early_stopping else None,
    )


def _log(points: "Sequence[SimulatedPoint]", settings: Settings) -> None:
    """Record a run for each mode; the step of its metrics is the number of devices: MLflow overlays the curves."""
    from mis.report.scaling_simulated import curves
    from mis.scaling.plan import MODE_NAMES
    from mis.scaling.record import log_pictures
    from mis.style import png
    from mis.track.base import SCALING, tracked
    from mis.track.names import DEVICE_UTILISATION, EFFICIENCY, ELAPSED_S, KIND_TAG, MODE_TAG, SPEEDUP
    from mis.track.recording import open_tracker

    picture = png(curves(points, "Simulated speed-up of the four modes"))
    with open_tracker(settings) as tracker:
        for mode in dict.fromkeys(point.mode for point in points):
            tags = {MODE_TAG: mode, KIND_TAG: "simulated"}
            with tracked(tracker.open_run(SCALING, f"{MODE_NAMES[mode]}, simulated", tags=tags)) as run:
                for point in (point for point in points if point.mode == mode):
                    figures = {
                        SPEEDUP: point.speedup,
                        EFFICIENCY: point.efficiency,
                        ELAPSED_S: point.elapsed_s,
                        DEVICE_UTILISATION: point.utilisation,
                    }
                    run.log_metrics(figures, step=point.devices)
                log_pictures([run], {"speedup": picture})


def _add_recommend(commands: "Commands") -> None:
    recommend = commands.add_parser("recommend", help="which mode to take, by what your own runs have taken")
    recommend.add_argument("--params", type=Path, metavar="FILE", help="instead of the project's params.yaml")
    cli.add_overrides(recommend)
    recommend.add_argument("--devices", type=int, required=True, help="how many there are")
    recommend.add_argument("--devices-per-node", type=int, help="by default all on one node")
    recommend.add_argument("--trials", type=int, help="by default tune.num_samples")
    recommend.add_argument("--hours", type=float, help="tell how many trials fit into so many hours")
    recommend.add_argument("--calibrate", action="store_true", help="measure first, with short searches")
    recommend.add_argument("--costs", type=Path, metavar="FILE", help="a cost set in place of your own runs")
    recommend.add_argument("--cases", type=int, help="with --costs: training cases; by default those of your records")
    recommend.add_argument("--val-cases", type=int, default=0, help="with --cases")
    recommend.add_argument("--spread", type=float, help="of the logarithm of the trials' durations; by default as seen")
    recommend.add_argument(
        "--early-stopping", action="store_true", help="stop trials as tune.scheduler has it for asha"
    )
    recommend.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    recommend.set_defaults(run=_recommend)


def _recommend(arguments: argparse.Namespace) -> None:
    from mis.scaling.advise import advise

    params, settings = cli.load(arguments.params, arguments.overrides)
    if arguments.calibrate:
        from mis.scaling.calibrate import calibrate

        calibrate(params, settings, params_file=arguments.params, overrides=arguments.overrides)
    report = advise(
        params,
        settings,
        devices=arguments.devices,
        devices_per_node=arguments.devices_per_node,
        trials=arguments.trials,
        hours=arguments.hours,
        costs=arguments.costs,
        cases=None if arguments.cases is None else (arguments.cases, arguments.val_cases),
        spread=arguments.spread,
        early_stopping=arguments.early_stopping,
    )
    for title, rows in report.tables().items():
        print(f"\n{title}")
        _print_table(rows)
    print(*("", *report.lines()), sep="\n")
    if arguments.json:
        write_json(arguments.json, report.to_json())


def _print_table(rows: object) -> None:
    import pandas as pd

    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format, na_rep="-"))


if __name__ == "__main__":
    raise SystemExit(main())
