"""Stage `train`: one training with the parameters as they stand."""

from mis import cli
from mis.files import copy_file, write_csv, write_json
from mis.params.load import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings
from mis.track.provenance import measured_on


def stage(params: Params, settings: Settings) -> None:
    import_tensorflow()
    from mis.train.session import train

    fitted = train(params, settings)
    if fitted is None:  # one of several workers; the chief writes
        return
    results = settings.workspace / "results" / "train"
    copy_file(fitted.best_model, settings.workspace / "models" / "train.keras")
    write_csv(results / "history.csv", [{"epoch": n, **row} for n, row in enumerate(fitted.history, start=1)])
    write_json(results / "metrics.json", fitted.summary())
    write_json(results / "measured_on.json", measured_on(settings))
    fitted.checkpoints.remove()


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
