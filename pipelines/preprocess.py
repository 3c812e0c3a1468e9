"""Stage `preprocess`: a data set becomes records, and a split that names every case."""

from mis import cli
from mis.data.records.prepare import make_records
from mis.params.load import Params
from mis.settings import Settings


def stage(params: Params, settings: Settings) -> None:
    make_records(params.data, settings.workspace, settings.records)


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
