"""`python -m mis.predict`: label maps that lie on their images, from a model and a folder of cases."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mis.cli import add_overrides, exit_code
from mis.data.case import MODALITIES
from mis.errors import MisError
from mis.params.data import LAYOUTS
from mis.params.load import load_params, load_predict_params
from mis.predict.source import add_model_options, check_best, find_models
from mis.quiet import import_tensorflow
from mis.settings import load_settings

OPTIONS: Mapping[str, str] = {"FLAIR": "flair", "T1w": "t1", "T1gd": "t1gd", "T2w": "t2"}
"""The option that names the file of each modality."""

EXAMPLES = """examples:
  python -m mis.predict --model model.keras data/raw/Task01_BrainTumour results/predicted
  python -m mis.predict --model model.keras BraTS-GLI-00001-000 results/predicted --probabilities
  python -m mis.predict --model model.keras --flair f.nii.gz --t1 a.nii.gz --t1gd c.nii.gz --t2 b.nii.gz patient.nii.gz
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 where a case could not be predicted."""
    parser = argparse.ArgumentParser(
        "python -m mis.predict",
        usage="python -m mis.predict --model MODEL [options] [INPUT] OUTPUT",
        description="Segment the cases of a folder: a label map for each, on the grid of its image.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_options(parser)
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="INPUT OUTPUT",
        help="the input: a data set's folder, a case's folder, a 4-D NIfTI file or a folder of such (left out where "
        "four files are named); and the folder of the label maps, or with four files the label map's file",
    )  # fmt: skip
    for modality, option in OPTIONS.items():
        parser.add_argument(f"--{option}", type=Path, metavar="FILE", help=f"the 3-D file of {modality}")
    parser.add_argument(
        "--layout", choices=("auto", *LAYOUTS), default="auto", help="of the input; recognised by default"
    )
    parser.add_argument(
        "--labels", choices=("msd", "brats2021", "brats2023"),
        help="whose label values are written; by default those of the input's layout, for four files brats2023",
    )  # fmt: skip
    parser.add_argument("--probabilities", action="store_true", help="write the probability of each region as well")
    parser.add_argument("--again", action="store_true", help="replace label maps that are there")
    parser.add_argument("--params", type=Path, metavar="FILE", help="instead of params.yaml, which need not be there")
    add_overrides(parser)
    arguments = parser.parse_args(argv)
    return exit_code(partial(_run, arguments))


def _run(arguments: argparse.Namespace) -> int:
    files = {modality: getattr(arguments, option) for modality, option in OPTIONS.items()}
    named = {modality: path for modality, path in files.items() if path is not None}
    if named and len(named) < len(MODALITIES):
        missing = ", ".join(f"--{OPTIONS[modality]}" for modality in MODALITIES if modality not in named)
        raise MisError("four files must be named, one for each modality", got=f"none with {missing}")
    wanted = 1 if named else 2
    if len(arguments.paths) != wanted:
        names = "OUTPUT alone, beside the four files" if named else "INPUT and OUTPUT"
        raise MisError(f"the command must have {names}", got=", ".join(map(str, arguments.paths)))
    check_best(arguments.model, arguments.best)
    settings = load_settings()
    if arguments.params is not None:
        params = load_params(arguments.params, arguments.overrides).predict
    else:
        params = load_predict_params(settings.workspace / "params.yaml", arguments.overrides)

    import_tensorflow()
    from mis.predict.cases import LABEL_VALUES, four_files, read_input
    from mis.predict.model import load_segmenter
    from mis.predict.session import SUFFIX, predict_cases
    from mis.track.mlflow import existing_store

    output = arguments.paths[-1]
    folder = output
    if named:
        if not output.name.endswith(SUFFIX):
            raise MisError(f"with four files OUTPUT must be the label map's file and end in {SUFFIX}", got=output)
        folder = output.parent
        data = four_files(named, output.name.removesuffix(SUFFIX))
    else:
        if output.name.endswith((".nii", SUFFIX)):
            raise MisError("OUTPUT must be a folder, where four files are not named one by one", got=output)
        source = arguments.paths[0]
        if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
            raise MisError("OUTPUT must be a folder outside of INPUT, which stays as it is", got=output)
        data = read_input(source, arguments.layout)
    with TemporaryDirectory() as fetched:
        names, best = arguments.model, arguments.best
        segmenter = load_segmenter(find_models(names, best, Path(fetched), partial(existing_store, settings)))
    outcome = predict_cases(
        segmenter,
        data,
        folder,
        params,
        label_values=LABEL_VALUES[arguments.labels] if arguments.labels else None,
        with_probabilities=arguments.probabilities,
        again=arguments.again,
    )
    for case, reason in sorted(outcome.failed.items()):
        print(f"not predicted: {case}: {reason}")
    kept = f", {len(outcome.kept)} were there" if outcome.kept else ""
    print(f"{len(outcome.predicted)} label maps written to {folder}{kept}")
    return 2 if outcome.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
