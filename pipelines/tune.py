"""Stage `tune`: the search of `python -m mis.tune`, its tables and its best model."""

from mis import cli
from mis.files import copy_file, write_json
from mis.params.load import Params
from mis.report.study.figures import write_figures
from mis.settings import Settings
from mis.track.provenance import measured_on
from mis.tune.session import tune


def stage(params: Params, settings: Settings) -> None:
    study = tune(params, settings, draw=write_figures, go_on=True)
    results = settings.workspace / "results" / "tune"
    copy_file(study.best_model, settings.workspace / "models" / "tune.keras")
    study.write_table(results / "trials.csv")
    study.write_histories(results / "history.csv")
    study.write_best_params(results / "best_params.yaml")
    write_json(results / "metrics.json", study.summary())
    write_json(results / "measured_on.json", measured_on(settings))
    study.finish()


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
