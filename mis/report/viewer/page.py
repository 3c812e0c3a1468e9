"""One page with NiiVue and the volumes of some cases in it: it opens from a disk, without a server or a network."""

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mis import pages
from mis.data.pictures.colours import REGION_COLOURS
from mis.data.pictures.planes import lesion_centre
from mis.data.volumes import UnreadableError, read_image
from mis.errors import MisError

PAGE = "cases.html"
TEMPLATE = "cases.html.j2"
LIBRARY, LICENSE = "niivue.js.gz", "LICENSE"
SUFFIX = ".nii.gz"

DIFFERENCES = {"missed": "#e64980", "false": "#22b8cf", "another region": "#fcc419"}
"""The colours of where truth and prediction differ, in the order of the values of that volume."""


def viewer_page(cases: Sequence[Path], regions: Sequence[str], scores: Mapping[str, str], *, phantom: bool) -> str:
    """Return the page of some cases.

    Args:
        cases: The folder of each case's volumes, `FLAIR`, `T1gd`, `truth`, `prediction` and `difference`, uint8 NIfTI.
        regions: The names of the regions, whose numbers are the values of truth and prediction, from 1.
        scores: What is said of each case beside its name.
        phantom: Whether the images are synthetic.

    Raises:
        MisError: A volume is missing or damaged.
    """
    content = [
        {
            "name": case.name,
            "centre": _centre(case),
            "scores": scores.get(case.name, ""),
            "volumes": {
                path.name.removesuffix(SUFFIX): b64encode(path.read_bytes()).decode("ascii")
                for path in sorted(case.glob(f"*{SUFFIX}"))
            },
        }
        for case in cases
    ]
    legends = {
        "prediction": {region: REGION_COLOURS[region] for region in regions},
        "truth": {region: REGION_COLOURS[region] for region in regions},
        "difference": DIFFERENCES,
    }
    values = {
        # A script ends at "</script>" wherever that stands; in JSON "<" is in texts alone.
        "license": files(__package__).joinpath(LICENSE).read_text(encoding="utf-8"),
        "library": gzip.decompress(files(__package__).joinpath(LIBRARY).read_bytes()).decode("utf-8"),
        "cases": json.dumps(content).replace("<", "\\u003c"),
        "legends": json.dumps(legends),
        "names": [case.name for case in cases],
        "phantom": phantom,
    }
    return pages.render(__package__, TEMPLATE, values)


def _centre(case: Path) -> list[float]:
    """Return where the middle of the largest lesion lies, in shares of the axes, 0 to 1."""
    truth, predicted = (_mask(case / f"{name}{SUFFIX}") for name in ("truth", "prediction"))
    centre = lesion_centre(truth, predicted)
    return [(index + 0.5) / length for index, length in zip(centre, truth.shape[:3], strict=True)]


def _mask(path: Path) -> NDArray[np.bool_]:
    try:
        return np.asarray(read_image(path).voxels)[..., np.newaxis] > 0
    except UnreadableError as error:
        raise MisError(
            f"{path} must be a volume as the stage evaluate has written it: {error}",
            do="run `dvc repro --force --single-item evaluate`",
        ) from None
