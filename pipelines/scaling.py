"""Stage `scaling`: data parallelism against experiment parallelism on the devices at hand."""

from mis import cli
from mis.files import write_csv, write_json
from mis.params.load import Params
from mis.scaling.session import compare
from mis.settings import Settings
from mis.track.provenance import measured_on


def stage(params: Params, settings: Settings) -> None:
    comparison = compare(params, settings)
    results = settings.workspace / "results" / "scaling"
    write_csv(results / "speedup.csv", comparison.rows())
    write_csv(results / "cells.csv", comparison.cells)
    write_csv(results / "trials.csv", comparison.trials)
    write_json(results / "metrics.json", comparison.summary())
    write_json(results / "measured_on.json", measured_on(settings))


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
