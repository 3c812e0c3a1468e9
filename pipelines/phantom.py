"""Stage `phantom`: a synthetic data set in the layout of MSD Task01_BrainTumour, or in another (`phantom.layout`)."""

from pathlib import Path

from mis import cli
from mis.data.phantom.write import make_phantom
from mis.params.load import Params
from mis.settings import Settings, cores

OUTPUT = Path("data/raw/phantom")


def stage(params: Params, settings: Settings) -> None:
    make_phantom(settings.workspace / OUTPUT, params.phantom, jobs=cores())


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
