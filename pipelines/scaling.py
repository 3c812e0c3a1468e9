"""Stage `scaling`: four ways to run a list of trials on several devices, measured on the devices at hand."""

from mis import cli
from mis.files import write_csv, write_json
from mis.params.load import Params
from mis.report.scaling_figures import pictures
from mis.scaling.comparison import write_comparison
from mis.scaling.session import compare
from mis.settings import Settings
from mis.track.provenance import measured_on


def stage(params: Params, settings: Settings) -> None:
    comparison = compare(params, settings, pictures)
    results = settings.workspace / "results" / "scaling"
    write_csv(results / "speedup.csv", comparison.rows())
    write_csv(results / "cells.csv", comparison.cell_rows())
    write_csv(results / "trials.csv", comparison.trial_rows())
    write_comparison(results / "comparison.json", comparison)
    write_json(results / "metrics.json", comparison.summary())
    write_json(results / "measured_on.json", measured_on(settings))


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
