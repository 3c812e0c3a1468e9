"""Stage `preprocess`: a data set becomes records, and a split that names every case."""

import sys

from mis import cli
from mis.params import Params
from mis.quiet import import_tensorflow
from mis.settings import Settings, cores


def stage(params: Params, settings: Settings) -> None:
    import_tensorflow()
    from mis.data.layouts.recognise import read_data
    from mis.data.records import summary
    from mis.data.writer import write_records

    data = read_data(settings.workspace / params.data.root, params.data.layout)
    records = write_records(data, params.data, settings.records, jobs=cores())
    print(*summary(records), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
