"""Stage `evaluate`: the better of the two models on the test split, which nothing else reads."""

from mis import cli
from mis.files import read_json, write_json
from mis.params.load import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings
from mis.track.names import BEST_DICE
from mis.track.provenance import measured_on


def stage(params: Params, settings: Settings) -> None:
    import_tensorflow()
    from mis.evaluate.session import evaluate

    root = settings.workspace
    trained, searched = (read_json(root / "results" / name / "metrics.json") for name in ("train", "tune"))
    of_folds = trained.get("fold_dice", {})
    models = {
        # Of folds, the Dice of the one that the search is validated on: the two compare.
        "train": (root / "models" / "train.keras", of_folds.get(str(params.train.fold), trained["dice"])),
        "tune": (root / "models" / "tune.keras", searched[BEST_DICE]),
    }
    results = root / "results" / "evaluate"
    write_json(results / "measured_on.json", measured_on(settings))
    evaluate(models, params, settings, results)


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
