"""Stage `preprocess`: a data set becomes records, and a split that names every case."""

from mis import cli
from mis.params import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings, cores


def stage(params: Params, settings: Settings) -> None:
    import_tensorflow()
    from mis.data.layouts import read_msd
    from mis.data.writer import write_records

    data = read_msd(settings.workspace / params.data.root)
    write_records(data, params.data, settings.records, jobs=cores())


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
