"""`python -m mis.train`: one training, with its progress on the terminal and its figures in MLflow."""

from collections.abc import Sequence

from mis import cli
from mis.params.load import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings


def command(params: Params, settings: Settings, *, profile: bool) -> None:
    """Train, and print the best score and where the model is."""
    import_tensorflow()
    from mis.track.mlflow import MlflowTracker
    from mis.track.names import VAL_DICE
    from mis.train.session import train

    fitted = train(params, settings, profile=profile)
    if fitted is None:  # this is one of several workers; the chief prints
        return
    print(f"best validation Dice {fitted.best[VAL_DICE]:.4f} in epoch {fitted.best_epoch}")
    print(f"the model and its curves: run {fitted.run_id} in {MlflowTracker(settings).location()}")
    fitted.checkpoints.remove()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = {"profile": "keep a TensorFlow profile of some steps as an artifact of the run"}
    return cli.run(command, "Train the 3D U-Net once.", argv, flags=flags)


if __name__ == "__main__":
    raise SystemExit(main())
