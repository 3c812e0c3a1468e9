"""Stage `train`: one training with the parameters as they stand, or one for each of `train.folds`."""

from mis import cli
from mis.files import write_csv, write_json
from mis.params.load import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings
from mis.track.provenance import measured_on


def stage(params: Params, settings: Settings) -> None:
    import_tensorflow()
    from mis.train.session import train
    from mis.tune.folds import train_folds

    folds = params.train.folds
    trained = train_folds(params, settings) if folds else train(params, settings)
    if trained is None:  # one of several workers; the chief writes
        return
    results = settings.workspace / "results" / "train"
    trained.write_model(settings.workspace / "models" / "train.keras")
    write_csv(results / "history.csv", [{"epoch": n, **row} for n, row in enumerate(trained.history, start=1)])
    write_json(results / "metrics.json", trained.summary())
    write_json(results / "measured_on.json", measured_on(settings))
    trained.finish()


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
