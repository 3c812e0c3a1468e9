"""What a case is made of, sampled apart from its drawing: anatomy, tumour, confounders and scan."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mis.data.phantom.grid import Point

MODALITIES = ("FLAIR", "T1w", "t1gd", "T2w")

SIGNAL: dict[str, tuple[float, float, float, float]] = {
    "csf": (0.30, 0.32, 0.34, 1.90),
    "grey": (0.98, 0.70, 0.73, 1.10),
    "white": (0.85, 1.00, 1.00, 0.82),
    "edema": (1.30, 0.80, 0.80, 1.38),
    "core": (0.95, 0.52, 0.54, 1.55),
    "enhancing": (1.10, 0.74, 1.90, 1.28),
    "vessel": (0.70, 0.75, 1.75, 0.70),
}
"""Mean signal in FLAIR, T1w, t1gd, T2w, relative to white matter in T1w; schematic, set by eye."""
SIGNAL_SPREAD: dict[str, float] = {
    "csf": 0.06, "grey": 0.02, "white": 0.02, "edema": 0.07, "core": 0.14, "enhancing": 0.06, "vessel": 0.08,
}  # fmt: skip
"""Relative standard deviation of each mean between cases."""


@dataclass(frozen=True)
class Anatomy:
    """The healthy brain of a case."""

    size: float
    """Scale of the whole brain, about 1."""
    tilt_rad: float
    """Rotation of the head in the axial plane."""
    ventricles: float
    """Scale of the ventricles, about 1."""
    sulcus_depth_mm: float
    sulcus_width_mm: float
    cortex_mm: float


@dataclass(frozen=True)
class Tumour:
    """Where a tumour sits, how large it and its parts are, and how irregular."""

    centre_mm: Point
    stretch: Point
    """Semi-axes relative to a ball's."""
    volume: float
    """Whole tumour as a share of the brain."""
    core: float
    """Core (labels 2 and 3) as a share of the whole tumour."""
    necrosis: float
    """Label 2 as a share of the core; 1 in about a fifth of the cases, where nothing enhances."""
    roughness: float
    """Displacement of the borders as a share of the radius."""

    @property
    def radius_mm(self) -> float:
        """Radius of a ball of the tumour's volume; a sampled brain has about 1.5 litres."""
        return float((self.volume * 1.5e6 * 3 / (4 * np.pi)) ** (1 / 3))


@dataclass(frozen=True)
class Confounders:
    """What is bright and no tumour."""

    lesions: tuple[tuple[Point, float], ...]
    """White matter lesions: centre and radius in mm; bright in FLAIR alone."""
    lesion_gain: float
    caps_mm: float
    """Thickness of the periventricular caps; bright in FLAIR alone."""
    cortex_gain: float
    """How much brighter patches of the cortex are in FLAIR."""
    shading_gain: float
    """How much brighter broad patches of the tissue are in FLAIR."""


@dataclass(frozen=True)
class Scan:
    """How the scanner shows it; rows and entries in the order of `MODALITIES`."""

    signal: tuple[tuple[str, tuple[float, ...]], ...]
    """Mean of each tissue in the four modalities."""
    scale: tuple[float, ...]
    """Arbitrary units that white matter in T1w would have."""
    bias: tuple[float, ...]
    """Standard deviation of the bias field's logarithm."""
    noise: tuple[float, ...]
    """Standard deviation of the noise in both channels of the receiver, as a share of `scale`."""


@dataclass(frozen=True)
class CaseSample:
    """All that a case is drawn from."""

    anatomy: Anatomy
    tumour: Tumour
    confounders: Confounders
    scan: Scan
    texture_seed: int
    """Seed of the smooth random fields and of the noise."""


def sample_case(rng: Generator) -> CaseSample:
    """Sample the brain, the tumour, the confounders and the scan of one case."""
    return CaseSample(
        _sample_anatomy(rng), _sample_tumour(rng), _sample_confounders(rng), _sample_scan(rng), int(rng.integers(2**63))
    )


def _sample_anatomy(rng: Generator) -> Anatomy:
    return Anatomy(
        size=rng.uniform(0.95, 1.04),
        tilt_rad=rng.uniform(-0.08, 0.08),
        ventricles=rng.uniform(0.8, 1.35),
        sulcus_depth_mm=rng.uniform(11, 16),
        sulcus_width_mm=rng.uniform(0.7, 1.5),
        cortex_mm=rng.uniform(2.6, 3.4),
    )


def _sample_tumour(rng: Generator) -> Tumour:
    """Sample a glioma in a hemisphere's white matter; about one in five does not enhance."""
    side = rng.choice((-1.0, 1.0))
    stretch = np.exp(rng.normal(0, 0.18, 3))
    return Tumour(
        centre_mm=(float(side * rng.uniform(16, 44)), rng.uniform(-48, 50), rng.uniform(-8, 40)),
        stretch=_point(stretch / stretch.prod() ** (1 / 3)),
        volume=float(np.exp(rng.uniform(np.log(0.05), np.log(0.19)))),
        core=rng.uniform(0.22, 0.5),
        necrosis=1.0 if rng.random() < 0.2 else rng.uniform(0.3, 0.7),
        roughness=rng.uniform(0.14, 0.30),
    )


def _sample_confounders(rng: Generator) -> Confounders:
    lesions = [
        (
            (float(rng.choice((-1.0, 1.0)) * rng.uniform(14, 42)), rng.uniform(-50, 50), rng.uniform(0, 42)),
            rng.uniform(3, 7),
        )
        for _ in range(rng.integers(4, 16))
    ]
    return Confounders(
        lesions=tuple(lesions),
        lesion_gain=rng.uniform(0.3, 0.6),
        caps_mm=rng.uniform(2, 6),
        cortex_gain=rng.uniform(0.15, 0.45),
        shading_gain=rng.uniform(0.1, 0.35),
    )


def _sample_scan(rng: Generator) -> Scan:
    return Scan(
        signal=tuple(
            (tissue, tuple(np.multiply(mean, np.exp(rng.normal(0, SIGNAL_SPREAD[tissue], 4))).tolist()))
            for tissue, mean in SIGNAL.items()
        ),
        scale=tuple(np.exp(rng.uniform(np.log(250), np.log(2500), 4)).tolist()),
        bias=tuple(rng.uniform(0.04, 0.12, 4).tolist()),
        noise=tuple(rng.uniform(0.02, 0.05, 4).tolist()),
    )


def _point(values: NDArray[np.floating[Any]]) -> Point:
    x, y, z = values.tolist()
    return x, y, z
