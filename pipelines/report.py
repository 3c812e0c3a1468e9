"""Stage `report`: one page from the files of the other stages, and from nothing else."""

from mis import cli
from mis.params.load import Params
from mis.report.html import write_report
from mis.settings import Settings


def stage(params: Params, settings: Settings) -> None:
    results = settings.workspace / "results"
    write_report(results, results / "report", data_root=params.data.root)


if __name__ == "__main__":
    raise SystemExit(cli.run(stage, __doc__))
