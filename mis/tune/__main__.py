"""`python -m mis.tune`: a search, with its progress on the terminal and its trials in MLflow."""

from collections.abc import Sequence

from mis import cli
from mis.params import Params
from mis.settings import Settings


def command(params: Params, settings: Settings) -> None:
    """Search and say what came out and where it is."""
    import pandas as pd

    from mis.track.mlflow import MlflowTracker
    from mis.tune.session import tune

    study = tune(params, settings)
    table = pd.DataFrame([trial.row() for trial in study.trials]).dropna(axis=1, how="all")
    print(table.to_string(index=False, float_format="{:.4g}".format))
    values = ", ".join(f"{name}={value}" for name, value in study.best.values.items())
    print(f"best: trial {study.best.name} with validation Dice {study.best.best['val/dice']:.4f}: {values}")
    print(f"study {study.name}, its curves and its model: {MlflowTracker(settings).location()}")
    study.remove()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(command, "Search over the parameters that params.yaml lists under tune.space.", argv)


if __name__ == "__main__":
    raise SystemExit(main())
