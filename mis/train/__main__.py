"""`python -m mis.train`: one training, with its progress on the terminal and its figures in MLflow."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mis import cli
from mis.errors import MisError
from mis.params.load import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings
from mis.track.recording import delivered_id, where


def command(params: Params, settings: Settings, *, profile: bool, one_fold: bool) -> None:
    """Train, and print the best score and where the model is."""
    if one_fold and params.train.folds is None:
        raise MisError("--one-fold is for one of train.folds, got null", do="--set train.folds=5, for example")
    import_tensorflow()
    from mis.track.names import VAL_DICE
    from mis.train.session import train

    if params.train.folds is not None and not one_fold:
        if profile:
            raise MisError("--profile is of one training", do="add --one-fold")
        _train_folds(params, settings)
        return
    fitted = train(params, settings, profile=profile)
    if fitted is None:  # this is one of several workers; the chief prints
        return
    print(f"best validation Dice {fitted.best[VAL_DICE]:.4f} in epoch {fitted.best_epoch}")
    print(f"the model and its curves: {where(fitted.run_id, settings)}")
    fitted.finish()


def _train_folds(params: Params, settings: Settings) -> None:
    from mis.data.layouts.recognise import read_data
    from mis.data.records.reader import read_records
    from mis.evaluate.folds import TABLE, score_folds
    from mis.evaluate.session import SCORES
    from mis.files import write_csv
    from mis.track.base import Run
    from mis.tune.folds import Folds, train_folds

    # Before the trainings, which may take days: what they are scored with must be there.
    data = read_data(settings.workspace / params.data.root, params.data.layout)
    means: dict[str, float] = {}
    runs: list[Run] = []

    def score(folds: Folds, run: Run) -> None:
        scores = score_folds(folds.model, read_records(settings.records, params.data), data, params)
        means.update(scores.summary())
        run.log_metrics(scores.metrics())
        with TemporaryDirectory() as folder:
            table = Path(folder) / TABLE
            write_csv(table, scores.rows())
            run.log_file(table, SCORES)
        runs.append(run)

    folds = train_folds(params, settings, then=score)
    for number, trial in enumerate(folds.trials):
        print(
            f"fold {number}: validation Dice {trial.score:.4f}, {folds.sizes[number]} cases, {trial.epochs} epochs, "
            f"{trial.state}"
        )
    regions = {name: value for name, value in means.items() if name.startswith("dice_")}
    by_region = ", ".join(f"{name.removeprefix('dice_').upper()} {value:.4f}" for name, value in regions.items())
    print(f"out of fold: Dice {means['dice']:.4f} ({by_region})")
    print(f"the ensemble, its folds and their scores: {where(delivered_id(runs[0]), settings)}")
    folds.finish()


DESCRIPTION = "Train the 3D U-Net once, or once for each of train.folds."

FLAGS = {
    "profile": "keep a TensorFlow profile of some steps as an artifact of the run",
    "one-fold": "where train.folds is set, train the model of train.fold alone",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    return cli.params_parser(DESCRIPTION, FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(command, DESCRIPTION, argv, flags=FLAGS)


if __name__ == "__main__":
    raise SystemExit(main())
