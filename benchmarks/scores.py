"""The convention `panoptica` beside the package brats-evaluation, and how long the scores of a full-size case take.

`python benchmarks/scores.py --peer PYTHON` needs another Python with that package, in an environment of its own:

    python -m venv /tmp/peer && /tmp/peer/bin/pip install brats-evaluation

Random masks of 1 mm voxels (blobs, and blobs that are moved, grown, shrunk or gone) are scored by both, and every score
must agree to 1e-6. Then the regions of a phantom of 240 x 240 x 155 are scored against themselves moved by 3 voxels, on
one core.

It prints a table and, with `--write`, puts it into docs/segmentation.md (then nothing may be uncommitted). A minute.
"""

import json
import os
import sys
import time
from math import isinf, isnan
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from page import measured_where, write_figures
from peer import peer_parser, read_options, run_peer
from scipy import ndimage

from mis.quiet import import_tensorflow

import_tensorflow()

from mis.data.layouts.recognise import read_data  # noqa: E402 - TensorFlow's own lines are silenced before
from mis.data.phantom.write import make_phantom  # noqa: E402
from mis.evaluate.cases import truth_of_files  # noqa: E402
from mis.evaluate.scores import CONVENTIONS, WORST_PANOPTICA_MM, panoptica  # noqa: E402
from mis.evaluate.surface import pooled_hausdorff_mm, robust_hausdorff_mm  # noqa: E402
from mis.params.load import load_params  # noqa: E402

ROOT = Path(__file__).parents[1]
PACKAGES = "brats-evaluation"
CASES, TOLERANCE, HD95_BAR_S = 150, 1e-6, 3.0
NAMES = {
    "global_bin_dsc": "dice", "global_bin_hd95": "hd95_mm", "sq_dsc": "lesion_dice", "sq_hd95": "lesion_hd95_mm",
    "tp": "lesions_found", "fp": "lesions_false", "fn": "lesions_missed",
}  # fmt: skip
"""Our name of each of the package's scores."""

PEER = """
import json, sys, tempfile, warnings
from importlib.resources import files
import nibabel as nib
import numpy as np
from panoptica import Panoptica_Evaluator
warnings.simplefilter("ignore")
config = files("brats_evaluation").joinpath("configs", "config_gli.yaml")
evaluator = Panoptica_Evaluator.load_from_config(str(config))
stored, names, found = np.load(sys.argv[1]), json.loads(sys.argv[2]), []
for number in range(len(stored.files) // 2):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for kind in ("predicted", "truth"):  # as the enhancing tumour, label 3
            labels = (stored[f"{kind}{number}"] * 3).astype(np.uint8)
            paths.append(f"{folder}/{kind}.nii.gz")
            nib.save(nib.Nifti1Image(labels, np.eye(4)), paths[-1])
        scores = evaluator.evaluate(*paths)["et"].to_dict(True)
    found.append({name: None if scores.get(name) is None else float(scores[name]) for name in names})
json.dump(found, open(sys.argv[3], "w"))
"""


def main(argv: list[str] | None = None) -> int:
    """Compare and measure, print the table, and write it where that is asked for; 1 where a bar is missed."""
    parser = peer_parser(__doc__.splitlines()[0], PACKAGES)
    parser.add_argument("--seed", type=int, default=0)
    options = read_options(parser, argv, ROOT)
    where = measured_where(ROOT, "one of which is used")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    worst = compare(options.peer, options.seed)
    seconds = full_size_seconds()
    lines = ["| | seconds |", "|---|---|", *(f"| {name} | {median(times):.2f} |" for name, times in seconds.items())]
    lines += ["", f"Of {CASES} random cases no score differs from brats-evaluation's by more than {worst:.1g}."]
    text = "\n".join([where, "", *lines])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "segmentation.md", "benchmarks/scores.py", text)
    slowest = max(median(times) for name, times in seconds.items() if name.startswith("HD95"))
    return 0 if worst <= TOLERANCE and slowest < HD95_BAR_S else 1


def random_masks(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of truth and prediction."""
    rng = np.random.default_rng(seed)

    def blobs() -> np.ndarray:
        field = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(1, 2.5))
        return np.asarray(field > rng.uniform(0.8, 2.5) * field.std())

    pairs = []
    for number in range(CASES):
        shape = tuple(rng.integers(12, 40, 3))
        truth = np.zeros(shape, bool) if number % 17 == 0 else blobs()
        predicted = (
            blobs(), np.roll(truth, 2, axis=0), ndimage.binary_dilation(truth), ndimage.binary_erosion(truth),
            np.zeros(shape, bool),
        )[rng.integers(5)]  # fmt: skip
        pairs.append((truth, predicted))
    return pairs


def compare(python: Path, seed: int) -> float:
    """Return the largest difference of any score from that of brats-evaluation, relative where it is above 1."""
    pairs = random_masks(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        arrays: dict[str, Any] = {}
        for number, (truth, predicted) in enumerate(pairs):
            arrays |= {f"truth{number}": truth, f"predicted{number}": predicted}
        np.savez(folder / "masks.npz", **arrays)
        names = json.dumps(list(NAMES))
        run_peer(python, PEER, folder / "masks.npz", names, folder / "scores.json", packages=PACKAGES)
        theirs = json.loads((folder / "scores.json").read_text())
    differences = []
    for (truth, predicted), expected in zip(pairs, theirs, strict=True):
        scores = panoptica(truth, predicted, (1.0, 1.0, 1.0))
        for name, own in NAMES.items():
            differences.append(_difference(float(getattr(scores, own)), expected[name]))
    return max(differences)


def _difference(own: float, expected: float | None) -> float:
    if expected is None or isnan(expected):
        return 0.0 if isnan(own) else float("inf")
    if isinf(expected):  # the package's own tables have 373 for it
        return 0.0 if isinf(own) or own == WORST_PANOPTICA_MM else float("inf")
    return abs(own - expected) / max(1.0, abs(expected))


def full_size_seconds() -> dict[str, list[float]]:
    """Return the seconds of each HD95 of the largest region, and of all scores of a case."""
    phantom = load_params(ROOT / "params.yaml").phantom.model_copy(
        update={"cases": 1, "unlabelled": 0, "shape": (240, 240, 155)}
    )
    with TemporaryDirectory() as name:
        make_phantom(Path(name) / "phantom", phantom, jobs=1, progress=False)
        data = read_data(Path(name) / "phantom")
        truth = truth_of_files(data, ("WT", "TC", "ET"))(data.cases[0].id)
    predicted, spacing_mm = np.roll(truth, 3, axis=(0, 1)), (1.0, 1.0, 1.0)
    kinds: dict[str, Any] = {
        "HD95 of WT, brats2023": lambda: robust_hausdorff_mm(truth[..., 0], predicted[..., 0], spacing_mm),
        "HD95 of WT, panoptica": lambda: pooled_hausdorff_mm(truth[..., 0], predicted[..., 0], spacing_mm),
    }
    for convention, score in CONVENTIONS.items():
        kinds[f"all scores of all regions, {convention}"] = lambda score=score: [
            score(truth[..., region], predicted[..., region], spacing_mm) for region in range(3)
        ]
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(3):
        for name, compute in kinds.items():
            begun = time.perf_counter()
            compute()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
